"""Digests of files, and the folders of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vgid.errors import ModelError

CHUNK = 2**20
WORK = "work"
"""What a run needs while it lasts, and `vgid purge` removes."""
MERGED, RECORD, PAGE, SEAL = "merged", "record.json", "record.html", "seal.json"


def sha256(path: Path) -> str:
    """Of a file, read bit by bit."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """All files, in order; what a link leads to is not followed into folders."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def digests(root: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Path below `root`, size and SHA-256 of each file."""
    return [{"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths]


def model_folder(model: str) -> tuple[Path, str | None]:
    """Where a model's files lie, and its revision on the hub; an id on the hub is fetched.

    Raises:
        ModelError: there is no such model.
    """
    if Path(model).is_dir():
        return Path(model), None
    if Path(model).exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            "no such model folder", where=model, expected="a folder, or an id on the hub such as owner/name", fix="check the path"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        raise ModelError(
            "the model cannot be fetched", where=model, got=type(error).__name__, fix="check its id and the network"
        ) from error
    return folder, folder.name
