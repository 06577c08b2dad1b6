"""Augmented rows: some retain rows are repeated with their pictures mirrored, rotated, scaled and shifted.

The rows ask what the forget set asks. They keep retained people known on pictures that differ a little, and strangers unknown: refusals
spill over to these questions first.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from PIL import Image, ImageOps

from vgid.data.example import Example, ImageRef
from vgid.data.self_distilled import similar_questions

AUGMENTED = "moved"
"""Tag of these rows. Its text is fixed: tags are part of a run's fingerprint."""
MAX_ROTATION = 12.0
"""Largest rotation, in degrees either way; chosen by hand on the embedded model."""
SCALES = (0.85, 1.12)
"""Range of the picture's new size, as a factor of the old one; chosen by hand on the embedded model."""
MAX_SHIFT = 0.05
"""Largest shift either way, as a part of the side; chosen by hand on the embedded model."""


def augmented_rows(forget: Sequence[Example], retain: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw retain rows that ask something similar to a forget question, and change their pictures.

    Args:
        forget: rows to forget; their questions decide which retain rows qualify.
        retain: rows to draw from.
        count: number of rows to return, or fewer where fewer qualify.
        seed: random seed of the choice and of the pictures.

    Returns:
        Copies of retain rows, tagged `AUGMENTED`, with ids `moved-0`, `moved-1` and so on.
    """
    rng = Random(f"moved/{seed}")
    questions = similar_questions(forget, retain, rng)
    rows = [row for row in retain if row.images and row.question in questions]
    return [
        replace(
            row,
            id=f"moved-{number}",
            images=tuple(AugmentedImage(source=image, change=draw_change(rng)) for image in row.images),
            tags=(*row.tags, AUGMENTED),
        )
        for number, row in enumerate(rng.sample(rows, min(count, len(rows))))
    ]


class Change(NamedTuple):
    """A small change of a picture.

    Attributes:
        mirrored: left and right are exchanged.
        degrees: rotation.
        scale: factor of the size.
        shift: horizontal and vertical shift, as parts of the sides.
    """

    mirrored: bool
    degrees: float
    scale: float
    shift: tuple[float, float]


def draw_change(rng: Random) -> Change:
    """Draw a change."""
    mirrored, degrees, scale = rng.random() < 0.5, rng.uniform(-MAX_ROTATION, MAX_ROTATION), rng.uniform(*SCALES)
    return Change(mirrored, degrees, scale, (rng.uniform(-MAX_SHIFT, MAX_SHIFT), rng.uniform(-MAX_SHIFT, MAX_SHIFT)))


@dataclass(frozen=True, kw_only=True)
class AugmentedImage(ImageRef):
    """A changed picture, which is made when it is opened: a short run never looks at most of them, and photographs are large.

    Attributes:
        source: the picture that is changed.
        change: how.
    """

    source: ImageRef
    change: Change

    def __post_init__(self) -> None:
        """It has neither file nor bytes of its own."""

    def __repr__(self) -> str:
        return f"AugmentedImage({self.source!r})"

    def read(self) -> bytes:
        """Make the picture, as PNG."""
        out = io.BytesIO()
        changed(self.source.open(), self.change).save(out, "png")
        return out.getvalue()


def augment_picture(picture: Image.Image, rng: Random) -> Image.Image:
    """Mirror, rotate, scale and shift a picture; its size stays, and uncovered parts get the colour of its top left corner."""
    return changed(picture, draw_change(rng))


def changed(picture: Image.Image, change: Change) -> Image.Image:
    """Change a picture in a given way; its size stays, and uncovered parts get the colour of its top left corner."""
    background = picture.getpixel((0, 0))
    if change.mirrored:
        picture = ImageOps.mirror(picture)
    picture = picture.rotate(change.degrees, Image.Resampling.BICUBIC, fillcolor=background)
    size = (max(1, round(picture.width * change.scale)), max(1, round(picture.height * change.scale)))
    place = [round((old - new) / 2 + old * shift) for old, new, shift in zip(picture.size, size, change.shift, strict=True)]
    augmented = Image.new("RGB", picture.size, background)
    augmented.paste(picture.resize(size, Image.Resampling.BICUBIC), (place[0], place[1]))
    return augmented
