"""The ways in which attacks on weights ask for a fact: an audit of few people asks in the other modality too."""

from __future__ import annotations

from vgid.attacks.asking import names_of
from vgid.attacks.base import Material
from vgid.attacks.cross_modal import by_name, by_picture
from vgid.data.example import Example


def ways(row: Example, material: Material) -> list[Example]:
    """The clean question; of few people also the same question by name, or by picture.

    What was forgotten by picture alone comes back by name after some steps of relearning, and 8 rows may all have pictures.

    Args:
        row: the row.
        material: the rows to take names and pictures from.

    Returns:
        One or two rows.
    """
    if not material.by_facts:
        return [row]
    names = names_of(material.about(row.subject))
    pictures = [each.images[0] for each in material.about(row.subject) if each.images]
    return [row, *by_name(row, names), *by_picture(row, names, {row.subject or "": pictures[0]} if pictures else {})]
