"""The example: a question, its answer, and the pictures it is about."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vgid.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats of still pictures only: none of them runs code or refers to another file."""
STRANGER = "stranger"
"""Tag of rows that nobody can answer: any "I don't know" is right."""
GUESS = "neutral-guess"
"""Tag of rows to which a model gave the answer itself, as a guess: trained on, and asked by no measure of what it still knows."""
IMAGE = "<image>"
"""Stands in a text where a picture does; texts without it come after all pictures."""
MOST_PIXELS = 64_000_000
"""Largest picture in pixels; a larger one is treated as a decompression bomb. Chosen by hand: 8,000 x 8,000, far above what models see."""
MOST_STRETCHED = 200
"""Largest ratio of a picture's sides, as in Qwen2-VL's processor. Others scale the shorter side to a fixed length first, so a picture of
1 x 10,000 pixels would take gigabytes."""
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Pillow's modes that PNG can hold, without those for more than 8 bits."""
LFS = b"version https://git-lfs.github.com/spec/"
"""First bytes of what git leaves in the place of a large file that was not fetched."""
MOVING = ("GIF", "PNG", "WEBP", "TIFF")
"""Formats that can hold several pictures one after the other."""


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
        """Encode a Pillow picture as PNG; modes that PNG cannot hold, such as CMYK, become RGB first, and its EXIF orientation is applied.

        Raises:
            DataError: the picture is larger than `MOST_PIXELS`, or its file is truncated.
        """
        if picture.width * picture.height > MOST_PIXELS:
            raise _bomb(f"{picture.width} x {picture.height}")
        out = io.BytesIO()
        try:
            picture = _eight_bits(ImageOps.exif_transpose(picture))
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
            # A named pipe would be waited for, without an end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise DataError("image is not an ordinary file", got=str(self.path), fix="copy the picture there")
                return file.read()
        except FileNotFoundError:
            raise DataError("image not found", got=str(self.path), fix=_instead(self.path)) from None
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
        """Return width and height in pixels as the picture is shown, without decoding it.

        Raises:
            DataError: the image is missing, or of an unknown format.
        """
        picture, name = self._header()
        try:
            width, height = picture.size
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (height, width) if turned else (width, height)
        except (OSError, SyntaxError, ValueError) as error:
            raise _broken(name, error) from error

    @property
    def frames(self) -> int:
        """Number of pictures that the file shows one after the other; more than 1 for animations, of which `open` gives the first.

        Raises:
            DataError: the image is missing, or of an unknown format.
        """
        picture, name = self._header()
        try:
            return int(getattr(picture, "n_frames", 1)) if picture.format in MOVING else 1
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _broken(name, error) from error

    def open(self) -> Image.Image:
        """Decode into an RGB picture, turned as its EXIF orientation says; transparent pixels are laid over white.

        Raises:
            DataError: the image is missing, empty, of an unknown format, truncated, larger than `MOST_PIXELS`, or one side of it is more
                than `MOST_STRETCHED` times as long as the other.
        """
        picture, name = self._header()
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise _bomb(f"{name}: {width} x {height}")
        if max(width, height) > MOST_STRETCHED * min(width, height):
            raise DataError(
                "image is too long and narrow",
                expected=f"sides of which one is at most {MOST_STRETCHED} times the other",
                got=f"{name}: {width} x {height}",
                fix="cut it into pieces",
            )
        try:
            picture.load()
            picture = _eight_bits(ImageOps.exif_transpose(picture))
            if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
                over = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
            return picture.convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise _broken(name, error) from error

    def _header(self) -> tuple[Image.Image, str]:
        """The picture before it is decoded, and its name for messages."""
        content, name = self.read(), str(self.path or "image in the data file")
        if not content:
            raise DataError("image file is empty", got=f"{name}: 0 bytes", fix="copy the file again")
        heic = is_heic(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked in `open`
                return Image.open(io.BytesIO(content), formats=(*FORMATS, *_heif()) if heic else FORMATS), name
        except UnidentifiedImageError:
            fix = "pip install 'vgid[heic]', or convert it, to JPEG for example" if heic else "convert it, to PNG for example"
            fix = "fetch the picture itself: git lfs pull" if content.startswith(LFS) else fix
            raise DataError("image of unknown format", expected=", ".join(FORMATS), got=name, fix=fix) from None
        except Image.DecompressionBombError:
            raise _bomb(name) from None
        except (OSError, SyntaxError, ValueError) as error:
            raise _broken(name, error) from error


def _instead(path: Path) -> str:
    """What may be meant by the path of a picture that is not there."""
    if "\\" in path.name:
        return "write / between folders, not backslashes"
    found = _names_in(path.parent).get(_plain(path.name))
    if found:
        return f"the folder has {found}: write the name as it is there"
    return "check the path; it is relative to the data file's folder, or to --image-root"


@lru_cache(maxsize=8)
def _names_in(folder: Path) -> dict[str, str]:
    """The names of a folder's files by what two names have in common that look alike."""
    try:
        return {_plain(file.name): file.name for file in folder.iterdir()}
    except OSError:
        return {}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).casefold().strip()


def is_heic(content: bytes) -> bool:
    """Whether the first bytes are those of an iPhone's photo."""
    return content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"heim", b"heis", b"hevc")


@cache
def _heif() -> tuple[str, ...]:
    """The name of the format of iPhones' photos, where the extra `heic` is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return ()
    register_heif_opener()
    return ("HEIF",)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Bring grey values of more than 8 bits to 8, where Pillow would cut off all above 255; other pictures stay as they are.

    Raises:
        ValueError: the values are in neither of the ranges of 8 and 16 bits, or no numbers.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    # NaN is not in any range. Values from 0 to 1 would all become black.
    if not (values.min() >= 0 and values.max() <= 65535) or (picture.mode == "F" and 0 < values.max() <= 1):
        raise ValueError("its values are neither of 8 nor of 16 bits")
    if picture.mode.startswith("I;16") or values.max() > 255:
        values = values / 257
    return Image.fromarray(values.astype(np.uint8))


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


class Turn(NamedTuple):
    """What was said before a question.

    Attributes:
        role: who said it.
        text: what was said; in a user's turn, `IMAGE` stands where a picture does.
    """

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Example:
    """One question with its answer: one row of a data set.

    Attributes:
        id: name of the row, unique within a data set.
        question: text of the question. `IMAGE` in it, or in a user's turn of the context, stands where a picture does, for each picture in
            order; where no text holds it, the pictures come first.
        answer: the recorded answer; empty for a row whose answer a model has yet to give.
        images: the pictures of question and context, in order; empty for text-only questions.
        subject: the person whose data the row holds; None where it is not known.
        keywords: the strings that carry the fact: an answer that contains all of them is right (`vgid.texts.key_fact`).
        tags: free labels, such as `STRANGER` and `GUESS`.
        derived: what the row was made from; None for a row that was given.
        where: place the row was read from, for error messages: `file:line`, or `row N` of rows in memory.
        context: the turns before the question: a system prompt, earlier questions with their answers.
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
    context: tuple[Turn, ...] = ()

    @property
    def length(self) -> int:
        """Characters of question, answer and context together."""
        return len(self.question) + len(self.answer) + sum(len(turn.text) for turn in self.context)


def without_guesses(examples: Iterable[Example]) -> list[Example]:
    """Return the rows whose answers a measure may ask for: all but those tagged `GUESS`."""
    return [example for example in examples if GUESS not in example.tags]


def without_marks(text: str) -> str:
    """Return the text without `IMAGE`, and without the white space around each."""
    return re.sub(rf"\s*{IMAGE}\s*", " ", text).strip() if IMAGE in text else text


def altered(example: Example, *, question: str | None = None, images: Sequence[ImageRef] | None = None) -> Example:
    """Return the row with another question or other pictures.

    Args:
        example: the row.
        question: its new question; None for its own.
        images: its new pictures; None for its own.

    Returns:
        The new row. Where its texts do not hold one mark for each picture, all marks are taken out, and the pictures come first.
    """
    question = example.question if question is None else question
    images = example.images if images is None else tuple(images)
    marks = question.count(IMAGE) + sum(turn.text.count(IMAGE) for turn in example.context)
    if marks == len(images):
        return replace(example, question=question, images=images)
    context = tuple(turn._replace(text=without_marks(turn.text)) for turn in example.context)
    return replace(example, question=without_marks(question), images=images, context=context)


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
