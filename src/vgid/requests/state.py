"""What a run has done so far: a file with its inputs and finished steps, so that the same command continues a run that was stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vgid.artifacts import write_json_atomic
from vgid.errors import DataError, OutputError
from vgid.reading import read_json
from vgid.requests.files import digests
from vgid.requests.record import FileDigest

FORMAT = "vgid.forget-state/1"


def now() -> str:
    """Return the time in UTC as records write it, such as 2026-05-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _FinishedStep(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    finished: str
    seconds: float = Field(ge=0, allow_inf_nan=False)
    files: list[FileDigest]


class _StateFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["vgid.forget-state/1"]
    started: str
    inputs: dict[str, str]
    steps: dict[str, _FinishedStep]
    notes: dict[str, dict[str, str]]


def read_state(file: Path) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        DataError: the file is damaged; no value is repeated.
    """
    content = read_json(file)
    try:
        _StateFile(**content)
    except (ValidationError, TypeError) as error:
        places = [".".join(map(str, each["loc"])) for each in error.errors()] if isinstance(error, ValidationError) else []
        raise DataError(
            "the state of the run cannot be read",
            where=file,
            expected=f"what `vgid forget` wrote, format {FORMAT}",
            got=f"other values at {', '.join(places[:5])}" if places else "other keys",
            fix="restore the file, or start again with --overwrite",
        ) from None
    return content


class RunState:
    """The finished steps of a run, each with the digests of its files. It holds nothing of what was asked or answered.

    Args:
        root: the run's folder.
        file: where the state is kept; what is there already is read.
        inputs: keyed digest of everything that decides the run, by name.
        notes: what later runs need to know, such as the path of the request folder.

    Raises:
        OutputError: the file belongs to a run with other inputs.
    """

    def __init__(self, root: Path, file: Path, inputs: Mapping[str, str], notes: Mapping[str, Any]) -> None:
        self.root, self.file = root, file
        if file.is_file():
            self.content: dict[str, Any] = read_state(file)
            self._check(inputs)
        else:
            self.content = {"format": FORMAT, "started": now(), "inputs": dict(inputs), "steps": {}}
        self.content["notes"] = dict(notes)

    def _check(self, inputs: Mapping[str, str]) -> None:
        before = self.content["inputs"]
        differing = [name for name in {**inputs, **before} if inputs.get(name) != before.get(name)]
        if differing:
            raise OutputError(
                "the folder holds a run that was started with other inputs",
                where=self.root,
                expected="the same request, model, data, settings, policy and key",
                got=f"other {', '.join(differing)}",
                fix="repeat the command with the same inputs, choose another --out, or start again with --overwrite",
            )

    def save(self) -> None:
        """Write the state to its file."""
        write_json_atomic(self.file, self.content)

    def is_finished(self, step: str) -> bool:
        """Return whether a step is finished and all its files are as it left them."""
        found = self.content["steps"].get(step)
        if found is None:
            return False
        paths = [self.root / each["path"] for each in found["files"]]
        return all(path.is_file() for path in paths) and digests(self.root, paths) == found["files"]

    def finish(self, step: str, files: Iterable[Path], started: float) -> None:
        """Note that a step is finished, and save.

        Args:
            step: its name.
            files: the files that it wrote.
            started: `time.monotonic()` when it began.
        """
        seconds = round(time.monotonic() - started, 2)
        self.content["steps"][step] = {"finished": now(), "seconds": seconds, "files": digests(self.root, files)}
        self.save()

    def drop(self, steps: Iterable[str]) -> None:
        """Remove steps that must be done again, or that no longer exist."""
        for step in steps:
            self.content["steps"].pop(step, None)
