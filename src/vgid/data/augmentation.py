"""Moved pictures: some retain rows come again with their picture mirrored, turned, scaled and shifted.

They are rows that ask what the forget set asks, so that whoever is kept is still known on pictures that look a little different, and
whoever is a stranger is still one: it is there that refusals spill over first.
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
"""Tag of such rows."""
TURN, SCALE, SHIFT = 12.0, (0.85, 1.12), 0.05
"""At most: degrees either way, range of sizes, part of a side either way."""


def augmented_rows(forget: Sequence[Example], retain: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Up to `count` retain rows that ask something like a forget question, with their pictures moved."""
    rng = Random(f"moved/{seed}")
    questions = similar_questions(forget, retain, rng)
    rows = [row for row in retain if row.images and row.question in questions]
    return [
        replace(row, id=f"moved-{number}", images=tuple(_moved(image, rng) for image in row.images), tags=(*row.tags, AUGMENTED))
        for number, row in enumerate(rng.sample(rows, min(count, len(rows))))
    ]


def _moved(image: ImageRef, rng: Random) -> ImageRef:
    out = io.BytesIO()
    augment_picture(image.open(), rng).save(out, "png")
    return ImageRef(data=out.getvalue())


def augment_picture(picture: Image.Image, rng: Random) -> Image.Image:
    """Mirror, turn, scale and shift a picture; what comes into view has the colour of its corner."""
    ground = picture.getpixel((0, 0))
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = picture.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BICUBIC, fillcolor=ground)
    scale = rng.uniform(*SCALE)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    place = [round((old - new) / 2 + old * rng.uniform(-SHIFT, SHIFT)) for old, new in zip(picture.size, size, strict=True)]
    moved = Image.new("RGB", picture.size, ground)
    moved.paste(picture.resize(size, Image.Resampling.BICUBIC), (place[0], place[1]))
    return moved
