"""What a run has done so far: a file that names its inputs and its finished steps, so that the same command goes on where it was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.errors import OutputError
from vgid.requests.files import digests

FORMAT = "vgid.forget-state/1"


def now() -> str:
    """The time, as it stands in records."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class State:
    """Steps that are done, each with the digests of what it left. Nothing of what was asked or answered is in it.

    Args:
        root: the run's folder.
        file: where the state is kept.
        inputs: keyed digest of everything that decides the run, by name.
        notes: what else later runs need to know, such as where the request lies.
    """

    def __init__(self, root: Path, file: Path, inputs: Mapping[str, str], notes: Mapping[str, Any]) -> None:
        self.root, self.file = root, file
        if file.is_file():
            self.content: dict[str, Any] = json.loads(file.read_text("utf-8"))
            self._check(inputs)
        else:
            self.content = {"format": FORMAT, "started": now(), "inputs": dict(inputs), "steps": {}}
        self.content["notes"] = dict(notes)

    def _check(self, inputs: Mapping[str, str]) -> None:
        then = self.content["inputs"]
        other = [name for name in {**inputs, **then} if inputs.get(name) != then.get(name)]
        if other:
            raise OutputError(
                "the folder holds a run that was started with something else",
                where=self.root,
                expected="the same request, model, data, settings, policy and key",
                got=f"other {', '.join(other)}",
                fix="give what it was started with, choose another --out, or begin anew with --overwrite",
            )

    def save(self) -> None:
        """Write it down."""
        write_json_atomic(self.file, self.content)

    def done(self, step: str) -> bool:
        """Whether a step's files are all there, as it left them."""
        found = self.content["steps"].get(step)
        if found is None:
            return False
        paths = [self.root / each["path"] for each in found["files"]]
        return all(path.is_file() for path in paths) and digests(self.root, paths) == found["files"]

    def finish(self, step: str, files: Iterable[Path], started: float) -> None:
        """A step is done, and left these files; `started` by `time.monotonic`."""
        seconds = round(time.monotonic() - started, 2)
        self.content["steps"][step] = {"finished": now(), "seconds": seconds, "files": digests(self.root, files)}
        self.save()

    def drop_from(self, steps: Iterable[str]) -> None:
        """Steps that must be done again."""
        for step in steps:
            self.content["steps"].pop(step, None)
