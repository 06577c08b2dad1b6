"""The example: a question, its answer, and the pictures it is about."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from vgid.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats of still pictures only: none of them runs code or refers to another file."""
STRANGER = "stranger"
"""Tag of rows that nobody can answer: any "I don't know" is right."""
MOST_PIXELS = 64_000_000
"""Largest picture in pixels; a larger one is treated as a decompression bomb. Chosen by hand: 8,000 x 8,000, far above what models see."""
PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
"""Pillow's modes that PNG can hold."""


@dataclass(frozen=True)
class ImageRef:
    """An encoded image, in a file or in memory; it is decoded only when it is opened.

    Attributes:
        path: the image file; None for an image in memory.
        data: the encoded bytes; None for an image in a file. Exactly one of the two is given.
    """

    path: Path | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise DataError("an image is either a file or bytes", expected="path or data", got="both" if self.path else "neither")

    def __repr__(self) -> str:
        return f"ImageRef({self.path or f'{len(self.data or bytes())} bytes'})"

    @classmethod
    def from_picture(cls, picture: Image.Image) -> ImageRef:
        """Encode a Pillow picture as PNG, without loss; modes that PNG cannot hold, such as CMYK, become RGB first.

        Raises:
            DataError: the picture is larger than `MOST_PIXELS`, or its file is truncated.
        """
        if picture.width * picture.height > MOST_PIXELS:
            raise _bomb(f"{picture.width} x {picture.height}")
        out = io.BytesIO()
        try:
            if picture.mode not in PNG_MODES:
                picture = picture.convert("RGBA" if picture.mode in ("PA", "RGBa") else "RGB")
            picture.save(out, "png")
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _broken("picture in memory", error) from error
        return cls(data=out.getvalue())

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise DataError("image not found", got=str(self.path), fix="check the path; it is relative to the data file's folder") from None
        except OSError as error:
            raise DataError(
                "image cannot be read", got=f"{self.path}: {error.strerror}", fix="check that it is a file you may read"
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the encoded bytes, as hexadecimal digits: equal for copies of one file, wherever they are stored.

        Raises:
            DataError: the file is missing or cannot be read.
        """
        return hashlib.sha256(self.read()).hexdigest()

    def size(self) -> tuple[int, int]:
        """Return width and height in pixels, without decoding the picture.

        Raises:
            DataError: the image is missing, or of an unknown format.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return Image.open(io.BytesIO(self.read()), formats=FORMATS).size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _broken(str(self.path or "image in the data file"), error) from error

    def open(self) -> Image.Image:
        """Decode into an RGB picture; transparent pixels are laid over white.

        Raises:
            DataError: the image is missing, empty, of an unknown format, truncated, or larger than `MOST_PIXELS`.
        """
        content, name = self.read(), str(self.path or "image in the data file")
        if not content:
            raise DataError("image file is empty", got=f"{name}: 0 bytes", fix="copy the file again")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
                picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            raise DataError(
                "image of unknown format", expected=", ".join(FORMATS), got=name, fix="convert it, to PNG for example"
            ) from None
        except Image.DecompressionBombError:
            raise _bomb(name) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise _broken(name, error) from error
        if picture.width * picture.height > MOST_PIXELS:
            raise _bomb(f"{name}: {picture.width} x {picture.height}")
        try:
            picture.load()
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                over = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
            return picture.convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _broken(name, error) from error


def _bomb(got: str) -> DataError:
    return DataError(
        "image is so large that it may be a decompression bomb",
        expected=f"at most {MOST_PIXELS:,} pixels",
        got=got,
        fix="scale it down; models see far fewer pixels",
    )


def _broken(name: str, error: Exception) -> DataError:
    return DataError("image is truncated or damaged", got=f"{name}: {error}", fix="copy or export the file again")


@dataclass(frozen=True)
class Derived:
    """Where a row comes from that was made from another one (`vgid data enrich`).

    Attributes:
        source: id of the row that it was made from.
        kind: how it was made, such as `wordings`.
    """

    source: str
    kind: str


@dataclass(frozen=True)
class Example:
    """One question with its answer: one row of a data set.

    Attributes:
        id: name of the row, unique within a data set.
        question: text of the question.
        answer: the recorded answer; empty for a row whose answer a model has yet to give.
        images: the pictures that the question is about, in order; empty for text-only questions.
        subject: the person whose data the row holds; None where it is not known.
        keywords: the strings that carry the fact: an answer that contains all of them is right (`vgid.evaluation.metrics.key_fact`).
        tags: free labels, such as `STRANGER`.
        derived: what the row was made from; None for a row that was given.
        where: place the row was read from, for error messages: `file:line`, or `row N` of rows in memory.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()
    subject: str | None = None
    keywords: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    derived: Derived | None = None
    where: str = ""


class HasSubject(Protocol):
    """Anything with a row's id and subject: an `Example`, or a result about one."""

    @property
    def id(self) -> str:
        """Name of the row."""

    @property
    def subject(self) -> str | None:
        """The person whose data the row holds."""


def subject_key(row: HasSubject) -> str:
    r"""Return the key that groups the rows of one person: the subject, or for a row without one `"\0" + id`, a subject of its own.

    No subject read from a file starts with a zero character in practice, so the two kinds of keys do not meet.
    """
    return row.subject or f"\0{row.id}"
