"""What was forgotten by picture, asked by name; what was forgotten by name, asked by picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vgid.attacks.asking import names_of, outcome, reveals_fact
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.data.example import Example, ImageRef
from vgid.evaluation.metrics import normalise
from vgid.models.loading import LoadedModel

_SHOWN = re.compile(
    r"\b(?:this|the) (?:person|individual|man|woman)(?: (?:(?:shown )?(?:here|in (?:the|this) (?:picture|image|photo))|in the image"
    r"|depicted|pictured|shown))?\b",
    re.IGNORECASE,
)
"""How questions speak of who is on a picture."""


class CrossModalConfig(Settings):
    """Cross-modal questions have no settings."""


@ATTACKS.register("cross_modal")
class CrossModal(Attack[CrossModalConfig]):
    """The name in place of the picture, as far as the rows tell names; a picture of the person in place of the name."""

    Config = CrossModalConfig
    access = "black box"
    finds = "image-only or text-only unlearning"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Levels: by name only, by picture only."""
        names, pictures = names_of(material.known), _pictures(material)
        ways = {
            "by name": lambda row: by_name(row, names),
            "by picture": lambda row: by_picture(row, names, pictures),
        }
        found = {level: outcome(loaded, material, way) for level, way in ways.items()}
        return {level: each for level, each in found.items() if each is not None}


def by_name(row: Example, names: Mapping[str, str]) -> Iterator[Example]:
    """A question with a picture, without it; nothing where the name is not known, or is what is asked."""
    name = names.get(row.subject or "")
    if row.images and name and not reveals_fact(name, row):
        question, count = _SHOWN.subn(lambda _: name, row.question)
        yield replace(row, images=(), question=question if count else f"This is about {name}. {row.question}")


def by_picture(row: Example, names: Mapping[str, str], pictures: Mapping[str, ImageRef]) -> Iterator[Example]:
    """A question by name, with a picture in place of the name; nothing where there is no picture, or the name is not in the question."""
    name, picture = names.get(row.subject or ""), pictures.get(row.subject or "")
    if not row.images and name and picture and normalise(name) in normalise(row.question):
        yield replace(row, images=(picture,), question=re.sub(re.escape(name), "this person", row.question, flags=re.IGNORECASE))


def _pictures(material: Material) -> dict[str, ImageRef]:
    """The first picture of every subject."""
    found: dict[str, ImageRef] = {}
    for row in material.known:
        if row.images and row.subject:
            found.setdefault(row.subject, row.images[0])
    return found
