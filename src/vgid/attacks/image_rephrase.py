"""The same picture, seen a little differently (transforms and strengths of arXiv 2505.01456)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from pydantic import Field

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.data.example import Example, ImageRef
from vgid.models.loading import LoadedModel

Transform = Callable[[Image.Image, int], Image.Image]
NOISE, DIMMED, RESIZED, CROPPED, BLURRED, HIDDEN = 0.02, 0.85, 0.85, 0.9, 2.0, 0.18
BLUR_SIDE = 336
"""The blur's radius is meant for pictures of this side."""


def noise(picture: Image.Image, seed: int) -> Image.Image:
    """Gaussian noise, of 2 % of the range."""
    pixels = np.asarray(picture, dtype=np.float64) / 255
    noisy = pixels + np.random.default_rng(seed).normal(0, NOISE, pixels.shape)
    return Image.fromarray((np.clip(noisy, 0, 1) * 255).round().astype(np.uint8))


def brightness(picture: Image.Image, _: int) -> Image.Image:
    """85 % of the brightness."""
    return ImageEnhance.Brightness(picture).enhance(DIMMED)


def contrast(picture: Image.Image, _: int) -> Image.Image:
    """85 % of the contrast."""
    return ImageEnhance.Contrast(picture).enhance(DIMMED)


def resize(picture: Image.Image, _: int) -> Image.Image:
    """85 % of the size."""
    return picture.resize((max(1, round(RESIZED * picture.width)), max(1, round(RESIZED * picture.height))))


def crop(picture: Image.Image, _: int) -> Image.Image:
    """The middle 90 %, as large as before."""
    x, y = round((1 - CROPPED) / 2 * picture.width), round((1 - CROPPED) / 2 * picture.height)
    return picture.crop((x, y, picture.width - x, picture.height - y)).resize(picture.size)


def blur(picture: Image.Image, _: int) -> Image.Image:
    """Gaussian blur of radius 2 on a picture of 336 pixels; in proportion on others."""
    return picture.filter(ImageFilter.GaussianBlur(BLURRED * min(picture.size) / BLUR_SIDE))


def occlusion(picture: Image.Image, seed: int) -> Image.Image:
    """A grey square over 18 % of the side, somewhere."""
    rng, (width, height) = Random(seed), (round(HIDDEN * picture.width), round(HIDDEN * picture.height))
    x, y = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    out = picture.copy()
    ImageDraw.Draw(out).rectangle((x, y, x + width, y + height), fill=(127, 127, 127))
    return out


def mirror(picture: Image.Image, _: int) -> Image.Image:
    """Left and right changed."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


TRANSFORMS: tuple[Transform, ...] = (crop, noise, brightness, occlusion, resize, contrast, blur, mirror)


class ImageRephraseConfig(Settings):
    """How many transforms are tried, and how often each; `views`: other pictures of the person that are tried."""

    transforms: int = Field(default=4, ge=1, le=len(TRANSFORMS))
    draws: int = Field(default=1, ge=1)
    views: int = Field(default=3, ge=1)


@ATTACKS.register("image_rephrase")
class ImageRephrase(Attack[ImageRephraseConfig]):
    """Noise, brightness, contrast, resizing, cropping, blur, occlusion and mirroring, one at a time; other pictures where there are any."""

    Config = ImageRephraseConfig
    access = "black box"
    finds = "refusal of the trained view only"
    full: ClassVar = {"transforms": 8, "draws": 3, "views": 8}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Levels: a changed picture, another picture; success with any counts. Questions without a picture are not asked."""

        @cache
        def changed(ref: ImageRef, transform: Transform, draw: int) -> ImageRef:
            return encoded(transform(ref.open(), material.seed + draw))

        def variants(row: Example) -> Iterator[Example]:
            for transform in TRANSFORMS[: self.config.transforms] if row.images else ():
                for draw in range(self.config.draws if transform in (noise, occlusion) else 1):
                    yield replace(row, images=tuple(changed(ref, transform, draw) for ref in row.images))

        shots: dict[str | None, list[tuple[ImageRef, ...]]] = {}
        for other in material.views:
            if other.images and other.subject and other.images not in (known := shots.setdefault(other.subject, [])):
                known.append(other.images)

        def elsewhere(row: Example) -> Iterator[Example]:
            if row.images:
                fresh = [images for images in shots.get(row.subject, ()) if images != row.images]
                Random(f"{material.seed}/{row.id}").shuffle(fresh)
                yield from (replace(row, images=images) for images in fresh[: self.config.views])

        found = {level: outcome(loaded, material, way) for level, way in (("any picture", variants), ("new view", elsewhere))}
        return {level: each for level, each in found.items() if each is not None}


def encoded(picture: Image.Image) -> ImageRef:
    """A picture as an example holds it."""
    out = io.BytesIO()
    picture.save(out, "png")
    return ImageRef(data=out.getvalue())
