"""The example: a question, its answer, and the pictures it is about."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vgid.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Still pictures only: no format that runs code or reaches outside its file."""
STRANGER = "stranger"
"""Tag of rows that nobody can answer: any "I don't know" is right."""
MOST_PIXELS = 64_000_000
"""A larger picture is taken for a decompression bomb."""


@dataclass(frozen=True)
class ImageRef:
    """An encoded image, in a file or in memory; decoded only when opened.

    Attributes:
        path: the file.
        data: its bytes; exactly one of both is given.
    """

    path: Path | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise DataError("an image is either a file or bytes", expected="path or data", got="both" if self.path else "neither")

    def __repr__(self) -> str:
        return f"ImageRef({self.path or f'{len(self.data or bytes())} bytes'})"

    def read(self) -> bytes:
        """The encoded bytes.

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
        """SHA-256 of the encoded bytes: which picture it is, wherever it lies."""
        return hashlib.sha256(self.read()).hexdigest()

    def size(self) -> tuple[int, int]:
        """Width and height, without decoding the pixels.

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
        """Decode into an RGB picture; transparency goes onto white.

        Raises:
            DataError: the image is missing, empty, of an unknown format, truncated, or of absurd size.
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
        fix="scale it down; models look at far fewer pixels",
    )


def _broken(name: str, error: Exception) -> DataError:
    return DataError("image is truncated or damaged", got=f"{name}: {error}", fix="copy or export the file again")


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Attributes:
        id: unique within a file.
        question: what is asked.
        answer: the recorded answer.
        images: the pictures it is about; none for text-only questions.
        subject: whose data it is.
        keywords: the strings that carry the fact, for key-fact accuracy.
        tags: free labels.
        where: `file:line` it was read from, for messages.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()
    subject: str | None = None
    keywords: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    where: str = ""
