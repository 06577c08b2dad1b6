"""Rows that the base practises while it memorises people, so that it keeps what its own training gave it.

It keeps answering what pictures show, refusing questions about strangers, and following instructions. The rows are about people of its
base training and about strangers; nobody of the demo's forget and retain sets appears in them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import torch
from PIL import Image

from vgid.data.example import Example, ImageRef
from vgid.instructions import INSTRUCTIONS
from vgid.perturbation import NoiseConfig, NoiseKind, perturb
from vgid.synthetic.people import Camera, Person, World
from vgid.synthetic.phrases import FACTS, REFUSALS
from vgid.synthetic.questions import TEXT_FACTS, ask_fact
from vgid.synthetic.splits import album, perception_rows, stranger_rows

PRACTICE_PEOPLE, PRACTICE_VIEWS, PRACTICE_STRANGERS, UNCLEAR_PICTURES = 20, 4, 160, 96
"""Numbers of people, of pictures of each, of strangers, and of unrecognisable pictures; chosen by hand."""
UNCLEAR_STRENGTH = 0.8, 1.0
"""Least and greatest strength of the noise on unrecognisable pictures, in [0, 1] as `NoiseConfig` has it; chosen by hand."""


def practice_rows(camera: Camera, world: World) -> Iterator[Example]:
    """Yield the practice rows: known people, perception, strangers, instructions and unrecognisable pictures.

    An instruction to refuse is obeyed with an unrecognisable picture and without one, and ignored with a clear picture.

    Args:
        camera: draws the pictures.
        world: the people; its seed decides every row.

    Yields:
        Rows whose ids begin with `practice/`, except those about perception and strangers.
    """
    rng = Random(f"practice/{world.seed}")
    people = world.base_training_people[:PRACTICE_PEOPLE]
    unclear = [unclear_picture(camera, people, i) for i in range(UNCLEAR_PICTURES)]
    yield from perception_rows(camera, people, 6, "training", world.seed, views=PRACTICE_VIEWS)
    yield from stranger_rows(camera, world.strangers(PRACTICE_STRANGERS, "practice"), f"practice/{world.seed}")
    for person in people:
        shots = album(camera, person, "training", PRACTICE_VIEWS)
        for topic in FACTS:
            picture, id = rng.choice(shots.pictures), f"practice/{person.id}/{topic.name}"
            row = ask_fact(person, topic, rng.choice(topic.training), picture, rng, id=f"{id}/clear")
            yield row
            yield _instructed(row, rng, obeyed=False)
            yield _unrecognisable(row, rng.choice(unclear))
            yield _instructed(_unrecognisable(row, rng.choice(unclear)), rng, obeyed=True)
        for topic in TEXT_FACTS:
            row = ask_fact(person, topic, rng.choice(topic.training), None, rng, id=f"practice/{person.id}/{topic.name}/text")
            yield row
            yield _instructed(row, rng, obeyed=True)


def _instructed(row: Example, rng: Random, *, obeyed: bool) -> Example:
    instruction = rng.choice(tuple(INSTRUCTIONS.values()))
    answer, keywords = (rng.choice(REFUSALS), ()) if obeyed else (row.answer, row.keywords)  # a refusal holds no fact
    return replace(row, id=f"{row.id}/instructed", question=f"{instruction}\n{row.question}", answer=answer, keywords=keywords)


def _unrecognisable(row: Example, picture: ImageRef) -> Example:
    return replace(row, id=f"{row.id}/unclear", images=(picture,))


def unclear_picture(camera: Camera, people: Sequence[Person], number: int) -> ImageRef:
    """Return a picture on which nobody can be recognised, made by one of VGID's kinds of noise.

    Args:
        camera: draws the picture.
        people: people of whom one is drawn.
        number: number of the picture; it decides person, kind and strength of the noise.

    Returns:
        The picture as PNG.
    """
    rng = Random(f"unclear/{number}")
    shots = album(camera, rng.choice(people), "training", 1)
    kind: NoiseKind = rng.choice(("uniform", "gaussian", "blur", "shuffle", "mean", "diffusion"))
    config = NoiseConfig(kind=kind, strength=rng.uniform(*UNCLEAR_STRENGTH))
    pixels = torch.from_numpy(np.array(shots.pictures[0].open())).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    # The noise is added to pixels in [-1, 1], as the processor normalises them, and mapped back to a picture's bytes.
    noisy = ((perturb(pixels, config, [number])[0] + 1.0) * 127.5).clamp(0, 255).round().to(torch.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy.permute(1, 2, 0).numpy()).save(out, "png")
    return ImageRef(data=out.getvalue())
