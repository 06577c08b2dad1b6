"""What a long experiment has measured already, in a file for each model: a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vgid
from vgid.artifacts import write_json_atomic
from vgid.reading import read_json
from vgid.training.fingerprint import files_digest

READINGS = "readings"
"""Folder of measured values, in the output folder of an experiment."""


class Kept:
    """Measured values of one model, by name; those of other models, rows, settings or code, or in a damaged file, are not taken up.

    Args:
        path: the file.
        identity: what the values depend on, as JSON holds it.

    Attributes:
        values: what is kept.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, dict(identity)
        found = read_json(path) if path.is_file() else {}
        values: Any = found.get("values")
        whole = isinstance(values, dict) and found.get("identity") == self.identity and found.get("digest") == _digest(values)
        self.values: dict[str, Any] = values if whole else {}

    def add(self, name: str, values: Any) -> None:
        """Keep what was measured."""
        self.values[name] = values
        write_json_atomic(self.path, {"identity": self.identity, "values": self.values, "digest": _digest(self.values)})


def anything_kept(folder: Path) -> bool:
    """Whether a run that failed has left measured values to go on from."""
    return any((folder / READINGS).rglob("*.json"))


def code_digest(*parts: str) -> str:
    """A digest of packages and modules of vgid, by their paths below it."""
    root = Path(vgid.__file__).parent
    return files_digest(
        sorted(path for part in parts for path in ((root / part).rglob("*.py") if (root / part).is_dir() else [root / part]))
    )


def model_digests(paths: Iterable[Path]) -> list[str]:
    """Digests of the weights of models; a hub id stands for itself."""
    return [files_digest(sorted(path.glob("*.safetensors"))) if path.is_dir() else str(path) for path in paths]


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
