"""Answers on disk while a benchmark runs, so that a run that was killed does not ask twice, and never reuses stale answers.

The file starts with a fingerprint of model, data and protocol; each line after it is one answer. It holds the very data to forget, so only
its owner may read it, and it is removed when the results are written, unless the user keeps it.
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
from vgid.errors import cannot_write
from vgid.run_folder import note

log = logging.getLogger("vgid")
SCHEMA = "vgid.answers/1"


def data_fingerprint(items: Iterable[Item]) -> str:
    """Return SHA-256 of all questions as a model gets them, with images."""
    digest = hashlib.sha256()
    for item in items:
        example = item.example
        asked = [item.key, item.split, item.task, example.question, example.answer, item.max_new_tokens, item.candidates, item.options]
        digest.update(json.dumps([*asked, example.subject, example.keywords, *example.context]).encode())
        for ref in example.images:
            digest.update(hashlib.sha256(ref.read()).digest())
    return digest.hexdigest()


def model_fingerprint(loaded: Any) -> str:
    """Return SHA-256 of a model as it is loaded: weights, buffers and adapters, tokenizer, image processor and chat template."""
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
    """One file of answers; use it as a context manager.

    Args:
        path: the file; None keeps the answers in memory.
        fingerprint: digest of model, data and protocol; a file with another one is overwritten.

    Raises:
        OutputError: the file cannot be written.
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
            note(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, whole)  # a kill may have left part of a line
            self._file = os.fdopen(descriptor, "a", encoding="utf-8")
            os.lseek(descriptor, 0, os.SEEK_END)
            if not whole:
                self._write({"schema": SCHEMA, "fingerprint": self._fingerprint})
        except OSError as error:
            raise cannot_write(self._path, error, "answers") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """Number of answers and scores."""
        return len(self._said) + len(self._losses)

    def said(self, key: str) -> str | None:
        """Return what the model said; None if it has not been asked."""
        return self._said.get(key)

    def losses(self, key: str) -> tuple[float, ...] | None:
        """Return the losses of an item's candidates, in nats per token; None if they have not been measured."""
        return self._losses.get(key)

    def answer(self, item: Item) -> Answer:
        """Return the answer to an item, with nothing in place of what has not been asked."""
        return Answer(self._said.get(item.key, ""), self._losses.get(item.key, ()))

    def add_said(self, key: str, said: str) -> None:
        """Store what the model said."""
        self._said[key] = said
        self._write({"key": key, "said": said})

    def add_losses(self, key: str, losses: tuple[float, ...]) -> None:
        """Store the losses of an item's candidates, in nats per token."""
        self._losses[key] = losses
        self._write({"key": key, "losses": losses})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()

    def _read(self, path: Path) -> int:
        """Load the answers of an earlier, unfinished run; return the number of bytes up to the last whole line."""
        if not path.exists():
            return 0
        good = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                entry = _parse_entry(line, header=number == 0)
                if entry is None:
                    break
                if number == 0:
                    if entry.get("schema") != SCHEMA or entry.get("fingerprint") != self._fingerprint:
                        log.info("%s: answers of another model, other data or another protocol are not reused", path.name)
                        return 0
                elif isinstance(entry.get("said"), str):
                    self._said[entry["key"]] = entry["said"]
                else:
                    self._losses[entry["key"]] = tuple(entry["losses"])
                good += len(line)
        return good


def _parse_entry(line: bytes, *, header: bool) -> dict[str, Any] | None:
    """Return a line's object; None for a line that is cut off or damaged."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    losses = entry.get("losses")
    right = (
        isinstance(entry.get("said"), str),
        isinstance(losses, list) and all(isinstance(loss, int | float) for loss in losses),
    )
    return entry if header or (isinstance(entry.get("key"), str) and any(right)) else None
