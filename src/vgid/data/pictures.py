"""From what a row gives for a picture to an `ImageRef`: a path, encoded bytes, base64, a data URI, a Pillow picture."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from PIL import Image

from vgid.data.example import ImageRef, is_heic
from vgid.data.problems import Notes, at
from vgid.errors import DataError

SUFFIXES = frozenset(".png .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .heic .heif .avif .jp2 .ico .svg".split())
"""Endings of picture files, in lower case."""
STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*": ".tif",
    b"MM\0*": ".tif",
}
"""First bytes of picture files, with the ending of their names."""
ROOT = "--image-root (of vgid data convert, where a command has no such option)"
"""How the folder of pictures is given."""
SHORTEST_BASE64 = 64
"""Characters. A text as long that is valid base64 of a picture is one; a path may consist of the same characters. Chosen by hand."""
_DATA_URI = re.compile(r"data:(image/[\w.+-]+)?(?:;[\w-]+=[\w-]+)*(;base64)?,(.*)", re.DOTALL | re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")


def bare_pictures(folder: Path) -> list[ImageRef]:
    """The pictures of a folder, in the order of their names.

    Raises:
        DataError: a picture cannot be used; all problems together.
    """
    found, problems = [], []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        image = ImageRef(path=path.resolve())
        try:
            image.open()
        except DataError as problem:
            problems.append(problem)
        found.append(image)
    if problems:
        raise DataError.together(problems)
    return found


def picture(value: Any, folder: Path | None, where: str) -> ImageRef:
    """Read what a row gives for a picture; the picture itself is not opened.

    Args:
        value: a path, an address with a path or with data, base64, bytes, a mapping with `bytes`, `path`, `url` or `base64`, or a Pillow
            picture.
        folder: folder of the data file or the root of all pictures, which paths must not leave; None where any path may be given.
        where: place of the row.

    Returns:
        The picture's file or bytes.

    Raises:
        DataError: the value is of another kind, an address on the net, a path that leaves the folder, or damaged base64.
    """
    if isinstance(value, Image.Image):
        try:
            return ImageRef.from_picture(value)
        except DataError as problem:
            raise at(problem, where) from None
    if isinstance(value, bytes | bytearray):
        return ImageRef(data=bytes(value))
    if isinstance(value, Mapping):
        return _of_mapping(value, folder, where)
    if folder is None and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        got = "an empty text" if isinstance(value, str) else "nothing" if value is None else type(value).__name__
        accepted = "a path, base64, or {bytes, path}" if folder is not None else "a picture, a path, base64, or {bytes, path}"
        fix = "give PIL.Image.fromarray(...) of it" if hasattr(value, "__array__") else None
        raise DataError("image has the wrong type", where=where, expected=accepted, got=got, fix=fix)
    if value[:5].lower() == "data:":
        return _of_data_uri(value, where)
    if len(value) >= SHORTEST_BASE64 and _BASE64.fullmatch(value) and (content := _decoded(value)) and suffix_of(content):
        return ImageRef(data=content)
    if value[:2] in ("b'", 'b"'):
        raise DataError(
            "image is bytes as Python shows them", where=where, expected="a path or base64", fix="write it with base64.b64encode"
        )
    if value[:7].lower() == "file://":
        value = unquote(urlparse(value).path)
    elif "://" in value:
        raise DataError("image is an address", where=where, expected="a path below the data file's folder", fix="download it first")
    return ImageRef(path=_inside(value, folder, where))


def suffix_of(content: bytes) -> str | None:
    """Return the ending of a picture's file by its first bytes; None for what is not a picture of a known kind."""
    return ".heic" if is_heic(content) else next((suffix for start, suffix in STARTS.items() if content.startswith(start)), None)


def seems_picture(value: Any) -> bool:
    """Whether a value of a column with another name looks like a picture or the path of one."""
    if isinstance(value, str):
        return value[:11].lower() == "data:image/" or f".{value.rpartition('.')[2].lower()}" in SUFFIXES
    if isinstance(value, list | tuple):
        return any(seems_picture(each) for each in value[:8])
    if isinstance(value, Mapping) and any(isinstance(value.get(name), str) and seems_picture(value[name]) for name in ("path", "url")):
        return True
    return holds_picture(value)


def holds_picture(value: Any) -> bool:
    """Whether a value is a picture itself, and not only the path of one."""
    if isinstance(value, list | tuple):
        return any(holds_picture(each) for each in value[:8])
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or ("bytes" in value and "path" in value)
    if isinstance(value, str):
        start = value[:SHORTEST_BASE64]
        return len(start) == SHORTEST_BASE64 and bool(_BASE64.fullmatch(start)) and suffix_of(_decoded(start) or b"") is not None
    return isinstance(value, Image.Image) or (isinstance(value, bytes) and suffix_of(value) is not None)


def check_pictures(refs: Iterable[ImageRef], where: str, checked: dict[ImageRef, DataError | None], notes: Notes) -> None:
    """Decode each different picture once; a bad one is reported for every row that uses it.

    Args:
        refs: the pictures of a row.
        where: place of the row.
        checked: what was found about pictures so far; it is added to.
        notes: animated pictures are counted in it.

    Raises:
        DataError: a picture cannot be used.
    """
    for ref in refs:
        if ref not in checked:
            try:
                ref.open()
                if ref.frames > 1:
                    notes.changes["animated or with several pages, of which the first is used"] += 1
                checked[ref] = None
            except DataError as problem:
                checked[ref] = problem
        bad = checked[ref]
        if bad is not None:
            raise at(bad, where)


def _of_mapping(value: Mapping[str, Any], folder: Path | None, where: str) -> ImageRef:
    if isinstance(value.get("bytes"), bytes):
        return ImageRef(data=value["bytes"])
    given = {name: value[name] for name in ("path", "url", "base64", "image", "data") if value.get(name) is not None}
    if len(given) != 1:
        raise DataError(
            "image has the wrong type",
            where=where,
            expected="{bytes, path}, or a mapping with one of path, url, base64",
            got=f"a mapping with {' and '.join(given) or 'none of them'}",
        )
    ((name, inner),) = given.items()
    if name in ("base64", "data"):
        content = _decoded(inner) if isinstance(inner, str) else None
        if not content:
            raise DataError("image is not valid base64", where=where, expected="base64 of a picture's file", fix="encode it again")
        return ImageRef(data=content)
    if isinstance(inner, Mapping):
        raise DataError("image has the wrong type", where=where, expected="a path", got="a mapping in a mapping")
    return picture(inner, folder, where)


def _of_data_uri(value: str, where: str) -> ImageRef:
    found = _DATA_URI.fullmatch(value)
    content = _decoded(found[3]) if found and found[2] else None
    if not content:
        raise DataError("image is not valid data URI", where=where, expected="data:image/png;base64,...", fix="encode it as base64 again")
    return ImageRef(data=content)


def _decoded(text: str) -> bytes | None:
    """Bytes of base64, of either alphabet and with or without padding; None for what is not base64."""
    packed = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _inside(value: str, folder: Path | None, where: str) -> Path:
    """The file that a path names; it may not leave the folder."""
    try:
        path = (folder / value).resolve() if folder is not None else Path(value).resolve()
        root = folder.resolve() if folder is not None else None
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that is too long
        raise DataError("image has a path that leads nowhere", where=where, got=type(error).__name__, fix="check the path") from None
    if root is not None and not path.is_relative_to(root):
        raise DataError(
            "image lies outside the data folder",
            where=where,
            expected=f"a path below {root}",
            got=value,
            fix=f"copy the images beside the data file, or give their folder as {ROOT}",
        )
    return path
