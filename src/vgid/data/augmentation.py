"""Augmented rows: some retain rows are repeated with their pictures mirrored, rotated, scaled and shifted.

The rows ask what the forget set asks. They keep retained people known on pictures that differ a little, and strangers unknown: refusals
spill over to these questions first.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from random import Random

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
        replace(row, id=f"moved-{number}", images=tuple(_augmented(image, rng) for image in row.images), tags=(*row.tags, AUGMENTED))
        for number, row in enumerate(rng.sample(rows, min(count, len(rows))))
    ]


def _augmented(image: ImageRef, rng: Random) -> ImageRef:
    out = io.BytesIO()
    augment_picture(image.open(), rng).save(out, "png")
    return ImageRef(data=out.getvalue())


def augment_picture(picture: Image.Image, rng: Random) -> Image.Image:
    """Mirror, rotate, scale and shift a picture; its size stays, and uncovered parts get the colour of its top left corner."""
    background = picture.getpixel((0, 0))
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = picture.rotate(rng.uniform(-MAX_ROTATION, MAX_ROTATION), Image.Resampling.BICUBIC, fillcolor=background)
    scale = rng.uniform(*SCALES)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    place = [round((old - new) / 2 + old * rng.uniform(-MAX_SHIFT, MAX_SHIFT)) for old, new in zip(picture.size, size, strict=True)]
    augmented = Image.new("RGB", picture.size, background)
    augmented.paste(picture.resize(size, Image.Resampling.BICUBIC), (place[0], place[1]))
    return augmented
