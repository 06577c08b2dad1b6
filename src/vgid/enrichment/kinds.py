"""The kinds of derived rows, and how people and facts are distinguished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from vgid.data.example import Example
from vgid.evaluation.metrics import normalise

Kind = Literal["names", "wordings", "views", "pairs", "seen", "facts"]
KINDS: Mapping[Kind, str] = {
    "names": "the same facts by name, and by picture where the rows ask by name",
    "wordings": "other wordings of the questions, by templates and by the base itself",
    "views": "the pictures mirrored, cropped, lighter, smaller, blurred, encoded again",
    "pairs": "two questions at once",
    "seen": "what is seen on the pictures, with the base's own answers, as retain rows",
    "facts": "what the base says of people about whom the request states no facts",
}
"""All kinds, and what each is."""
assert set(KINDS) == set(get_args(Kind))


def person_of(row: Example) -> str:
    """Return the key of a row's person: the subject; without one the picture, which shows the same person in all its rows; or the row."""
    return row.subject or (row.images[0].fingerprint if row.images else row.id)


def fact_of(row: Example) -> tuple[str, ...]:
    """Return the key of a row's fact among those of the same person: its keywords, or else its answer."""
    return tuple(sorted(map(normalise, row.keywords))) or (normalise(row.answer),)


def grouped(rows: Iterable[Example]) -> dict[str, dict[tuple[str, ...], list[Example]]]:
    """Group rows by person, and those of a person by fact, in the order of the rows."""
    found: dict[str, dict[tuple[str, ...], list[Example]]] = {}
    for row in rows:
        found.setdefault(person_of(row), {}).setdefault(fact_of(row), []).append(row)
    return found


def pictures_of(rows: Sequence[Example]) -> list[Example]:
    """Return one row for each different picture, in the order of the rows; rows with several pictures are left out."""
    return list({row.images[0].fingerprint: row for row in rows if len(row.images) == 1}.values())
