"""Shared by attacks that rank the true value among decoys, in an audit of few people.

A model finds values that it has learned about others likelier than values that it never learned, whomever it is asked about. So each loss
is counted from the loss of the same value in the same question about nobody: with a picture on which nothing can be recognised, or with an
invented name (a pointwise mutual information of person and value).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

import numpy as np
from PIL import Image

from vgid.attacks.asking import names_of
from vgid.attacks.base import Material, Outcome, fact_key
from vgid.attacks.scores import TokenLosses, alternatives, beaten, grouped
from vgid.data.example import Example, ImageRef
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.models.loading import LoadedModel

Losses = Callable[[Sequence[TokenLosses]], list[float]]
"""Gives the loss of each answer of a group."""
STRANGERS = 3
"""Number of questions about nobody from which losses are counted; chosen by hand."""


def ranked(loaded: LoadedModel, material: Material, losses: Losses, options: int) -> Outcome:
    """Rank true values and decoys by how much likelier they are than in questions about nobody.

    Args:
        loaded: the model.
        material: the rows, with decoys. Of each fact one row with a picture and one without are scored.
        losses: gives the loss of each answer of a group.
        options: number of values to rank for a retain row; their losses are taken as they are.

    Returns:
        For each value the share of the others that it beats; chance is 1/2.
    """
    rows = list({(fact_key(row), bool(row.images)): row for row in material.forget[::-1] if material.decoys.get(row.id)}.values())[::-1]
    groups = {row.id: [row, *material.decoys[row.id]] for row in rows}
    asked = [
        [replace(each, images=other.images, question=other.question) for each in groups[row.id]]
        for row in rows
        for other in about_nobody(row, material)
    ]
    retained = {row.id: [row, *alternatives(row, material.peers(row), options - 1, material.seed)] for row in material.retain}
    retained = {id: group for id, group in retained.items() if len(group) == options}
    scored = iter(grouped(loaded, [*groups.values(), *asked, *retained.values()], material.batch_size))
    own = {id: losses(next(scored)) for id in groups}
    strange = {id: [losses(next(scored)) for _ in range(STRANGERS)] for id in groups}
    found = {id: beaten([loss - fmean(each) for loss, *each in zip(own[id], *strange[id], strict=True)]) for id in groups}
    control = {id: beaten(losses(next(scored)))[0] for id in retained}
    return Outcome({id: each[0] for id, each in found.items()}, control, 0.5, decoys={id: each[1:] for id, each in found.items()})


def about_nobody(row: Example, material: Material) -> list[Example]:
    """The question of a row with pictures of noise, or with invented names in place of the person's.

    A question by name in which the name is not found is asked as it is: all its values then count the same.
    """
    rng = Random(f"nobody/{material.seed}/{row.id}")
    name = names_of(material.about(row.subject)).get(row.subject or "")
    versions = []
    for _ in range(STRANGERS):
        invented = f"{rng.choice(FIRST_NAMES['female'] + FIRST_NAMES['male'])} {rng.choice(LAST_NAMES)}"
        question = re.sub(re.escape(name), invented, row.question, flags=re.IGNORECASE) if name else row.question
        versions.append(replace(row, question=question, images=tuple(noise(ref, rng.randrange(2**32)) for ref in row.images)))
    return versions


def noise(ref: ImageRef, seed: int) -> ImageRef:
    """A picture of independent random pixels, of the same size."""
    width, height = ref.size()
    return ImageRef.from_picture(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)))
