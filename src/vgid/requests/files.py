"""The files of a run: their names, their digests, and where a model's files are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vgid.errors import ModelError

CHUNK = 2**20
"""Bytes of a file to hold in memory at once."""
WORK = "work"
"""Folder of what a run needs only while it lasts; `vgid purge` removes it."""
CHECKS = "checks"
"""Folder of the results of steps that write one small file."""
MERGED, RECORD, PAGE, MANIFEST = "merged", "record.json", "record.html", "manifest.json"
FORMER_MANIFEST = "seal.json"
"""Name of the manifest in earlier releases."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in the order of their paths; links to folders are not followed."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def digests(root: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return for each file its path below `root`, its size in bytes and its SHA-256."""
    return [{"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths]


def model_folder(model: str) -> tuple[Path, str | None]:
    """Find a model's files; a model on the hub is downloaded.

    Args:
        model: a folder, or an id on the hub.

    Returns:
        The folder, and the revision (commit) of a model on the hub.

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
            "the model cannot be downloaded", where=model, got=type(error).__name__, fix="check its id and the network"
        ) from error
    return folder, folder.name
