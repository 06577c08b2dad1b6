"""Checkpoints of a run: one safetensors file, whole or absent, that holds all a run needs to go on, and nothing of what was asked or
answered.

Its tensors are `weights/NAME` (what is trained), `optimizer/NAME/KEY` and `best/NAME` (weights of the best evaluation); all else is
JSON in its header. Which rows a step sees and what is random in it follow from (seed, step), so of these the step is enough.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vgid import processes
from vgid.errors import OutputError, RunError, VgidError, cannot_write
from vgid.reading import parse_json
from vgid.run_folder import note
from vgid.training.fingerprint import Fingerprint, check_same

STATE = "state.safetensors"
"""Name of the file in a checkpoint's folder."""
UNFINISHED = ".unfinished"
"""Folder in it where the file is written: safetensors writes to a file of its own beside the one it is given, under any name."""
FORMAT = "vgid.checkpoint/2"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: tensors by name, and notes that JSON can tell, `step` and `done` among them."""

    tensors: Tensors
    notes: Mapping[str, Any]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors with names that start with a prefix, without that prefix."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


class Checkpoints:
    """The folder a run keeps its checkpoint in: the last one only, readable by its owner only.

    Args:
        folder: folder of the checkpoint, made when first written to.
        fingerprint: digests of what the run depends on.
        resume: go on from the checkpoint that is there; without it what is there is replaced.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint, *, resume: bool = False) -> None:
        self.folder, self.fingerprint, self.resume = folder, fingerprint, resume

    @property
    def file(self) -> Path:
        """Where the checkpoint lies."""
        return self.folder / STATE

    def read(self) -> Checkpoint | None:
        """The checkpoint to go on from; None to begin anew.

        Raises:
            OutputError: it cannot be read, or was written by another run.
            RunError: not every process sees it.
        """
        found = _read(self.file) if self.resume and self.file.is_file() else None
        if found:
            check_same(found.notes["fingerprint"], self.fingerprint, self.file)
        seen = processes.exchange(found.notes["step"] if found else None)
        if len(set(seen)) > 1:
            raise RunError(
                "the processes do not see the same checkpoint",
                where=self.file,
                got=f"steps {seen}, by process",
                fix="write to a folder that all machines share",
            )
        return found

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; a crash, or a disk that is full, leaves the one before.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            note(self.file)
            note(self.folder / UNFINISHED, tree=True)
            header = {"format": FORMAT, "notes": json.dumps({**checkpoint.notes, "fingerprint": self.fingerprint})}
            _write(self.file, dict(checkpoint.tensors), header)
        except (OSError, SafetensorError) as error:
            if isinstance(error, VgidError):
                raise
            kept = f"the checkpoint before it is kept in {self.folder}" if self.file.is_file() else "there is none before it"
            raise cannot_write(
                self.file, error, "checkpoint", got=kept, fix="free some space, and give the command again, with --resume where it has that"
            ) from error


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, and its folder if nothing else is in it."""
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    with suppress(OSError):  # gone, or with files of others in it
        folder.rmdir()


def _write(file: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    unfinished = file.parent / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # what a process that was killed has left
    unfinished.mkdir(mode=0o700)
    try:
        temporary = unfinished / file.name
        save_file(tensors, temporary, header)
        temporary.chmod(0o600)
        _sync(temporary)
        os.replace(temporary, file)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if os.name == "posix":
        _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path) -> Checkpoint:
    try:
        with safe_open(file, framework="pt") as content:
            header = content.metadata() or {}
            if header.get("format") != FORMAT:
                got = str(header.get("format"))[:40]
                fix = "begin anew with --overwrite"
                raise OutputError("the file is not a checkpoint of this version", where=file, expected=FORMAT, got=got, fix=fix)
            notes = parse_json(header.get("notes", ""), file, OutputError)
            if not (isinstance(notes.get("fingerprint"), dict) and isinstance(notes.get("step"), int)):
                raise OutputError("the checkpoint's header lacks its step or fingerprint", where=file, fix="begin anew with --overwrite")
            return Checkpoint({name: content.get_tensor(name) for name in content.keys()}, notes)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        if isinstance(error, VgidError):
            raise
        raise OutputError("the checkpoint cannot be read", where=file, got=_reason(error), fix="begin anew with --overwrite") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().splitlines()[0]
