"""Tar files in WebDataset's form: files whose names agree up to the first dot are one sample.

`KEY.json` holds the row; `KEY.jpg`, `KEY.png`, `KEY.0.jpg`, `KEY.1.jpg`, ... are its pictures, in the order of their names. Other files are
fields of the row under their ending, such as `KEY.question.txt` or `KEY.answer.txt`.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgid.data.pictures import SUFFIXES as PICTURES
from vgid.data.problems import at
from vgid.data.readers.base import MOST_BYTES, Rows, failing
from vgid.data.readers.json_rows import parse
from vgid.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
DATA = frozenset("jsonl ndjson csv tsv parquet arrow gz".split())
"""Endings of data files: a folder was packed, not samples."""
UNREAD = frozenset("mp4 avi mov mkv webm wav mp3 flac ogg m4a npy npz pth pt pkl pickle".split())
"""Endings of films, sounds and arrays, which no row can do without if it has them."""


def rows(file: Path) -> Rows:
    """Read the samples of a tar file one after the other; nothing is unpacked.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with tarfile.open(file, "r|*") as archive:
            for number, members in enumerate(_samples(archive), 1):
                yield number, _parsed(members, f"{file}:{number}")
    except (tarfile.TarError, OSError, EOFError, TypeError, zlib.error) as error:  # a TypeError where the gzip header is cut off
        raise DataError("tar file cannot be read", where=file, got=type(error).__name__, fix="write the file again") from error


def _samples(archive: tarfile.TarFile) -> Iterator[dict[str, bytes | DataError]]:
    """Members that follow each other with the same key, by their endings."""
    current: str | None = None
    members: dict[str, bytes | DataError] = {}
    seen: set[str] = set()
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if member.isdir() or not ending or name.startswith("._"):
            continue
        key = f"{folder}/{stem}" if folder else stem
        if key != current:
            if current is not None:
                yield members
            current, members = key, {}
            if key in seen:
                members[""] = DataError("files of one sample are apart", fix="sort the files by name before packing them")
            seen.add(key)
        if ending.lower() in members:
            members[ending.lower()] = DataError(
                "two files of one sample have the same name", expected="names that differ", fix="rename one"
            )
        else:
            members[ending.lower()] = _content(archive, member)
    if current is not None:
        yield members


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | DataError:
    if not member.isreg():
        return DataError("sample holds a link or a special file", expected="ordinary files", fix="pack the files themselves")
    if member.size > MOST_BYTES:
        return DataError("a file is too large", expected=f"at most {MOST_BYTES:,} bytes", got=f"{member.size:,}", fix="take it out")
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _parsed(members: dict[str, bytes | DataError], where: str) -> Any:
    for content in members.values():
        if isinstance(content, DataError):
            return failing(at(content, where))
    return lambda: _row({ending: content for ending, content in members.items() if isinstance(content, bytes)}, where)


def _row(members: dict[str, bytes], where: str) -> dict[str, Any]:
    """The sample as one row: its JSON, its texts, and its pictures."""
    row: dict[str, Any] = {}
    pictures: list[tuple[str, bytes]] = []
    for ending, content in members.items():
        kind = ending.rpartition(".")[2]
        if f".{kind}" in PICTURES:
            pictures.append((ending, content))
        elif kind in UNREAD:
            raise DataError(f"sample holds a .{kind} file", where=where, expected="text and pictures", fix="take such samples out")
        elif kind in DATA:
            fix = "unpack it, and give the data file"
            raise DataError(f"the tar file holds a .{kind} file", where=where, expected="samples of WebDataset", fix=fix)
        elif kind == "json":
            row |= _json(content, where)
        elif kind in ("txt", "text", "cls"):
            row[ending.removesuffix(f".{kind}") if "." in ending else kind] = _utf8(content, where)
        else:
            row[ending] = content
    if pictures:
        _put_pictures(row, [content for _, content in sorted(pictures, key=lambda pair: _natural(pair[0]))], where)
    return row


def _put_pictures(row: dict[str, Any], pictures: list[bytes], where: str) -> None:
    """Pictures of the sample take the places of names that its JSON gives for them."""
    for name in ("image", "images"):
        given = row.get(name)
        if given is not None:
            count = len(given) if isinstance(given, list) else 1
            if count != len(pictures):
                raise DataError(
                    "sample has another number of pictures than its JSON names", where=where, expected=str(count), got=str(len(pictures))
                )
            row[name] = [{"bytes": content} for content in pictures]
            return
    row["images"] = [{"bytes": content} for content in pictures]


def _natural(name: str) -> list[tuple[int, str]]:
    """Order in which 10 comes after 9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _json(content: bytes, where: str) -> dict[str, Any]:
    found = parse(_utf8(content, where), where)
    if not isinstance(found, dict):
        raise DataError("JSON is not an object", where=where, expected="a row", got=type(found).__name__)
    return found


def _utf8(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DataError("text is not UTF-8", where=where, fix="save it as UTF-8") from None
