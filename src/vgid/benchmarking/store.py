"""Answers on disk while a benchmark runs: what is finished is not asked again after a kill, and stale answers are never reused.

The file starts with a fingerprint of model, data and protocol; each line after it is one answer. It holds the very data to be forgotten,
so only its owner may read it, and it is removed when the results are written, unless the user keeps it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vgid.benchmarks.base import Answer, Item
from vgid.errors import OutputError

log = logging.getLogger("vgid")
SCHEMA = "vgid.answers/1"


def data_fingerprint(items: Iterable[Item]) -> str:
    """SHA-256 of every question as it is put, pictures included."""
    digest = hashlib.sha256()
    for item in items:
        example = item.example
        asked = [item.key, item.split, item.task, example.question, example.answer, item.max_new_tokens, item.candidates, item.options]
        digest.update(json.dumps([*asked, example.subject, example.keywords]).encode())
        for ref in example.images:
            digest.update(hashlib.sha256(ref.read()).digest())
    return digest.hexdigest()


def model_fingerprint(loaded: Any) -> str:
    """SHA-256 of all weights and buffers as they are loaded, adapters included, and of tokenizer, pictures' treatment and chat template."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    processor = loaded.processor
    parts = [processor.tokenizer.get_vocab(), str(processor.chat_template), processor.image_processor.to_dict()]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


class AnswerStore:
    """One file of answers; use as a context manager.

    Args:
        path: the file; None keeps nothing on disk.
        fingerprint: of model, data and protocol; a file with another one is not read, but begun anew.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint
        self._said: dict[str, str] = {}
        self._losses: dict[str, tuple[float, ...]] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> AnswerStore:
        if self._path is None:
            return self
        whole = self._read(self._path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, whole)  # a line cut short by a kill
            self._file = os.fdopen(descriptor, "a", encoding="utf-8")
            os.lseek(descriptor, 0, os.SEEK_END)
            if not whole:
                self._write({"schema": SCHEMA, "fingerprint": self._fingerprint})
        except OSError as error:
            raise OutputError(f"cannot write answers: {error.strerror or error}", where=self._path, fix="choose another --out") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """How many answers and scores are there."""
        return len(self._said) + len(self._losses)

    def said(self, key: str) -> str | None:
        """What the model said, if it has been asked."""
        return self._said.get(key)

    def losses(self, key: str) -> tuple[float, ...] | None:
        """The losses of an item's candidates, if they have been measured."""
        return self._losses.get(key)

    def answer(self, item: Item) -> Answer:
        """All that is known about an item."""
        return Answer(self._said.get(item.key, ""), self._losses.get(item.key, ()))

    def add_said(self, key: str, said: str) -> None:
        """Keep what the model said."""
        self._said[key] = said
        self._write({"key": key, "said": said})

    def add_losses(self, key: str, losses: tuple[float, ...]) -> None:
        """Keep the losses of an item's candidates."""
        self._losses[key] = losses
        self._write({"key": key, "losses": losses})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()

    def _read(self, path: Path) -> int:
        """Take over the answers of an earlier, unfinished run; gives how many bytes of the file are good."""
        if not path.exists():
            return 0
        good = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                entry = _entry(line)
                if entry is None:
                    break
                if number == 0:
                    if entry.get("schema") != SCHEMA or entry.get("fingerprint") != self._fingerprint:
                        log.info("%s: answers of another model, other data or another protocol are not reused", path.name)
                        return 0
                elif "said" in entry:
                    self._said[entry["key"]] = entry["said"]
                else:
                    self._losses[entry["key"]] = tuple(entry["losses"])
                good += len(line)
        return good


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
