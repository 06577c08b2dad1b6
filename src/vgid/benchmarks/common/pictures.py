"""Images in folders and zip archives, by path."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from vgid.data.example import ImageRef
from vgid.errors import DataError

LARGEST_PICTURE = 128 * 2**20
"""Bytes; a larger member of a zip archive is not read, since it may be a decompression bomb. Published images have a few megabytes."""


class Pictures:
    """Images by relative path, in a folder or in zip archives in it.

    Published paths often start with folders that the download does not have. So, among the files with the right name, the one that agrees
    with most of the path's end is taken; two that agree equally are an error.

    Args:
        root: the folder; files outside it, behind links, are not read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _index(self) -> dict[str, list[tuple[str, Path]]]:
        """Each file name with its (path, zip archive or the file itself)."""
        index: dict[str, list[tuple[str, Path]]] = {}
        for file in sorted(self.root.rglob("*")):
            if not file.is_file() or not file.resolve().is_relative_to(self.root.resolve()):
                continue
            if file.suffix.lower() == ".zip":
                for name in _members(file):
                    index.setdefault(PurePosixPath(name).name, []).append((name, file))
            else:
                index.setdefault(file.name, []).append((file.relative_to(self.root).as_posix(), file))
        return index

    def get(self, path: str, where: str) -> ImageRef:
        """Return the image of a path.

        Raises:
            DataError: there is none, or several fit the path equally well.
        """
        wanted = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in (".", "/")]
        found = self._index.get(wanted[-1], []) if wanted else []
        agreeing = [(_agreement(wanted, PurePosixPath(name).parts), name, file) for name, file in found]
        best = [entry for entry in agreeing if entry[0] == max(count for count, _, _ in agreeing)]
        if len(best) != 1:
            raise DataError(
                "the image is missing" if not best else "several images fit the path",
                where=where,
                expected=f"{path} in {self.root}, or in a zip archive there",
                got="none" if not best else ", ".join(name for _, name, _ in best[:4]),
                fix="download the images too, into the same folder" if not best else "remove the copies",
            )
        _, name, file = best[0]
        return _read_member(file, name, where) if file.suffix.lower() == ".zip" else ImageRef(path=file)


def _agreement(wanted: Sequence[str], have: Sequence[str]) -> int:
    """Return how many parts of two paths are equal, counted from the end."""
    pairs = zip(reversed(wanted), reversed(have), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(have)))


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as file:
            return [info.filename for info in file.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError("the zip archive cannot be read", where=archive, got=str(error), fix="download it again") from error


def _read_member(archive: Path, name: str, where: str) -> ImageRef:
    try:
        with zipfile.ZipFile(archive) as file:
            size = file.getinfo(name).file_size
            if size > LARGEST_PICTURE:
                raise DataError(
                    "an image in a zip archive is too large",
                    where=where,
                    expected=f"at most {LARGEST_PICTURE:,} bytes",
                    got=f"{size:,}",
                )
            return ImageRef(data=file.read(name))
    except (zipfile.BadZipFile, RuntimeError, OSError) as error:
        raise DataError("the image cannot be read from its zip archive", where=where, got=f"{archive.name}: {error}") from error
