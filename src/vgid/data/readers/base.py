"""What every reader gives: rows as they were found."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgid.data.example import LFS
from vgid.errors import DataError

MOST_BYTES = 256 * 2**20
"""Bytes of one row, at most. Pictures of 64 million pixels take less; a longer value would take several times its size of memory."""
LARGEST_POINTER = 1024
"""Bytes above which a file is no pointer of `git lfs`, by its specification."""
Row = Mapping[str, Any] | Callable[[], Any]
"""A row's content, or a function that parses it and raises where that fails, so that a bad row stops no others."""
Rows = Iterator[tuple[int, Row]]
"""Rows with their numbers, counted from 1 as people count: lines, entries, samples."""


class RawRow(NamedTuple):
    """One row as it was found.

    Attributes:
        where: its place, for messages.
        id: its id where it has none of its own.
        folder: the folder of its images; without one, image paths may lead anywhere: the caller gave them, not a file from elsewhere.
        content: its content, or a function that parses it.
    """

    where: str
    id: str
    folder: Path | None
    content: Any


def failing(problem: DataError) -> Callable[[], Any]:
    """The content of a row that cannot be read."""

    def fail() -> Any:
        raise problem

    return fail


def check_file(file: Path) -> None:
    """Make sure that a data file can be read.

    Raises:
        DataError: it does not exist, is empty, is the pointer of a large file that git did not fetch, or is not an ordinary file: a
            named pipe would be waited for, without an end.
    """
    try:
        found = file.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise DataError("no such file or folder", where=file, fix="check the path") from None
        raise DataError("file cannot be read", where=file, got=error.strerror, fix="check the path") from None
    except ValueError:  # a zero character
        raise DataError("no such file or folder", where=file, fix="check the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError("not an ordinary file", where=file, expected="a data file", fix="copy its content into a file")
    if not found.st_size:
        raise DataError("the data file is empty", where=file, expected="at least one row", got="0 bytes")
    if found.st_size < LARGEST_POINTER and file.read_bytes().startswith(LFS):
        raise DataError("git left a pointer in the place of the file", where=file, expected="a data file", fix="git lfs pull")
