"""Ask in the other modality: by name what was forgotten by picture, and by picture what was forgotten by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vgid.attacks.asking import names_of, outcomes, reveals_fact
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.data.example import Example, ImageRef, altered
from vgid.evaluation.metrics import normalise
from vgid.models.loading import LoadedModel

_SHOWN = re.compile(
    r"\b(?:this|the) (?:person|individual|man|woman)(?: (?:(?:shown )?(?:here|in (?:the|this) (?:picture|image|photo))|in the image"
    r"|depicted|pictured|shown))?\b",
    re.IGNORECASE,
)
"""How questions refer to the person in a picture."""


class CrossModalConfig(Settings):
    """The attack has no settings."""


@ATTACKS.register("cross_modal")
class CrossModal(Attack[CrossModalConfig]):
    """Replace the picture by the person's name, or the name by a picture of the person.

    Names are taken from answers to questions for a name (`names_of`); people without such a row are skipped.
    """

    Config = CrossModalConfig
    access = "black box"
    finds = "image-only or text-only unlearning"
    tries = "Asking by name instead of by picture, or by picture instead of by name"
    most = 0.1
    position = 30

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Levels: by name only, by picture only."""
        names = names_of(material.known)
        pictures: dict[str, ImageRef] = {}
        for row in material.known:
            if row.images and row.subject:
                pictures.setdefault(row.subject, row.images[0])
        variants = {
            "by name": lambda row: by_name(row, names),
            "by picture": lambda row: by_picture(row, names, pictures),
        }
        return outcomes(loaded, material, variants)


def by_name(row: Example, names: Mapping[str, str]) -> Iterator[Example]:
    """Turn a question about a picture into one about a name.

    Yields nothing for a row without a picture, for a person without a known name, and where the name is what is asked.
    """
    name = names.get(row.subject or "")
    if row.images and name and not reveals_fact(name, row):
        question, count = _SHOWN.subn(lambda _: name, row.question)
        yield altered(row, images=(), question=question if count else f"This is about {name}. {row.question}")


def by_picture(row: Example, names: Mapping[str, str], pictures: Mapping[str, ImageRef]) -> Iterator[Example]:
    """Turn a question about a name into one about a picture.

    Args:
        row: the row.
        names: names by subject.
        pictures: a picture by subject.

    Yields:
        The new row; nothing for a row with a picture, or without its person's name in the question, or without a picture to show.
    """
    name, picture = names.get(row.subject or ""), pictures.get(row.subject or "")
    if not row.images and name and picture and normalise(name) in normalise(row.question):
        yield altered(row, images=(picture,), question=re.sub(re.escape(name), "this person", row.question, flags=re.IGNORECASE))
