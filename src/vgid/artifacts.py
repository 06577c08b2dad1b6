"""Files that are complete or absent: they are written to a temporary name beside the target, synced to disk, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from safetensors import SafetensorError

from vgid.errors import DataError, OutputError, VgidError, cannot_write
from vgid.run_folder import note


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that a reader, or a crash, finds the old file or the new one, never a part of it; makes parent folders.

    Raises:
        OutputError: the file cannot be written; an earlier file is unchanged.
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write bytes as `write_text_atomic` writes text.

    Args:
        path: the file.
        content: its new content.
        sync: False to leave it to the system when data reach the disk: far faster for many files, but a power cut may leave empty ones.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    note(path, sync=sync)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content, sync)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, which gets its name only when the `with` statement ends without an error.

    Raises:
        OutputError: the file cannot be written.
    """
    unfinished: Path | None = None
    note(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(descriptor)
        unfinished = Path(name)
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(unfinished, _mode(path))
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except VgidError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, which gets its name only when the `with` statement ends without an error.

    Raises:
        OutputError: the folder exists and is not empty, or cannot be made.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError("the folder is not empty", where=str(folder), fix="choose another one, or empty it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        unfinished.chmod(0o777 & ~_umask())  # mkdtemp alone would give 0700
    except OSError as error:
        raise cannot_write(folder, error, "folder") from error
    note(unfinished, tree=True)
    try:
        yield unfinished
        for path in sorted(unfinished.rglob("*")):
            if not path.is_dir():
                note(folder / path.relative_to(unfinished))
        os.replace(unfinished, folder)
    except VgidError:
        raise
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error, "folder") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def private() -> Iterator[None]:
    """Let everything that is written within the `with` statement be readable by its owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def cache_folder() -> Path:
    """Return the user's cache folder for vgid, which holds files that can be made again, and none of the user's data."""
    return platformdirs.user_cache_path("vgid")


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Write an object as indented JSON, with keys in their order and a newline at the end, as `write_text_atomic` writes text.

    Raises:
        DataError: the object holds NaN, an infinity, or a type that JSON does not have.
        OutputError: the file cannot be written.
    """
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            "the object cannot be written as JSON",
            where=str(path),
            expected="finite numbers, text, true, false, null, lists and objects of these",
            got=str(error),
        ) from error
    write_text_atomic(path, text + "\n")


def _replace(path: Path, content: bytes, sync: bool) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(path.parent)


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, or those of a new file under the umask; mkstemp alone would give 0600."""
    if path.exists():
        return path.stat().st_mode & 0o777
    return 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, on systems where folders can be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
