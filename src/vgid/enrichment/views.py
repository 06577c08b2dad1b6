"""Other views of the pictures: what a camera, a screen shot or another file would make of them.

The strengths differ from those of the audit's attack `image_rephrase`, which must test more than what was trained.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from random import Random

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vgid.data.example import ImageRef

CROPPED, LIGHTER, SMALLER, BLURRED, QUALITY = 0.93, 1.3, 0.5, 0.006, 40
"""Share of the sides that a crop keeps; factor on the light; factor on the sides; radius of the blur as a share of the shorter side;
quality of the JPEG. Chosen by hand: people are still recognised."""


def _crop(picture: Image.Image) -> Image.Image:
    x, y = round((1 - CROPPED) / 2 * picture.width), round((1 - CROPPED) * picture.height)
    return picture.crop((x, 0, picture.width - x, picture.height - y)).resize(picture.size)


def _smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((max(1, round(SMALLER * picture.width)), max(1, round(SMALLER * picture.height)))).resize(picture.size)


def _encoded_again(picture: Image.Image) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "jpeg", quality=QUALITY)
    return Image.open(out).convert("RGB")


VIEWS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "mirror": ImageOps.mirror,
    "crop": _crop,
    "light": lambda picture: ImageEnhance.Brightness(picture).enhance(LIGHTER),
    "scale": _smaller,
    "blur": lambda picture: picture.filter(ImageFilter.GaussianBlur(BLURRED * min(picture.size))),
    "encoding": _encoded_again,
}
"""All views by name; each is a function of the RGB picture alone, and keeps its size."""


GRID = 6
"""Blocks of an unrecognisable picture on each side; chosen by hand."""


def unrecognisable(image: ImageRef, rng: Random) -> ImageRef:
    """Return a picture with its blocks in random order, as PNG in memory: the same colours, and nobody to be seen.

    Raises:
        DataError: the picture cannot be opened.
    """
    picture = image.open()
    width, height = max(1, picture.width // GRID), max(1, picture.height // GRID)
    places = [(x * width, y * height) for x in range(picture.width // width) for y in range(picture.height // height)]
    mixed = picture.copy()
    for (x, y), (left, top) in zip(places, rng.sample(places, len(places)), strict=True):
        mixed.paste(picture.crop((left, top, left + width, top + height)), (x, y))
    return ImageRef.from_picture(mixed)


def view_of(image: ImageRef, name: str) -> ImageRef:
    """Return a view of a picture, as PNG in memory.

    Raises:
        DataError: the picture cannot be opened.
    """
    return ImageRef.from_picture(VIEWS[name](image.open()))
