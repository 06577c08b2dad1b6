"""Rows to keep about other people of whom there are bare pictures or names only: what the base says of them itself.

Whoever must honour a request often has no rows about others, but portraits or names of people whom the model knows. The base is asked about
each of them as about a person to forget (`vgid.enrichment.facts`), so only what it says steadily becomes a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vgid.data.example import Example, ImageRef
from vgid.data.pictures import bare_pictures
from vgid.data.replay import REPLAY
from vgid.enrichment.enrich import enrich
from vgid.enrichment.kinds import Kind
from vgid.errors import DataError
from vgid.models.loading import LoadedModel
from vgid.reading import read_text

WITHOUT: tuple[Kind, ...] = ("pairs",)
"""Kinds of rows that are not made: two questions at once teach nothing about others that one does not."""


def read_names(path: Path) -> list[str]:
    """Read names, one in a line; blank lines separate.

    Raises:
        DataError: there is no such file, no name in it, or one stands twice.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise DataError(
            "a name stands twice" if twice else "there is no name",
            where=path,
            expected="one name in a line",
            got=", ".join(twice) or "an empty file",
            fix="leave one out" if twice else "write names, or leave --names out",
        )
    return names


def read_pictures(folder: Path) -> list[ImageRef]:
    """Read the pictures of a folder, in the order of their names.

    Raises:
        DataError: there is no such folder, no picture in it, or one cannot be used.
    """
    found = bare_pictures(folder) if folder.is_dir() else []
    if not found:
        problem = "there is no picture" if folder.is_dir() else "no such folder"
        raise DataError(problem, where=folder, expected="a folder with one picture of each person", fix="check the path")
    return found


def rows_about_others(
    loaded: LoadedModel, pictures: Sequence[ImageRef], names: Sequence[str], seed: int = 0
) -> tuple[list[Example], list[int], list[str]]:
    """Ask the base about other people.

    Args:
        loaded: the base.
        pictures: a picture of each person.
        names: names of people; nothing says which of the pictures shows whom.
        seed: random seed; the same seed gives the same rows.

    Returns:
        Rows with the base's answers, each person with a subject, tagged as replay rows (`vgid.data.replay`); then places of pictures, and
        names, about which it says nothing steady.

    Raises:
        DataError: it says nothing steady about anybody.
    """
    shown = [Example(f"other-picture-{n}", "", "", (image,), f"other-picture-{n}") for n, image in enumerate(pictures, 1)]
    named = {f"other-name-{n}": name for n, name in enumerate(names, 1)}
    people = [*shown, *(Example(subject, "", "", (), subject) for subject in named)]
    # One by one: of many people together enrichment makes no more rows than of a few.
    made = {row.subject: enrich(loaded, [row], names=named, without=WITHOUT, seed=seed) for row in people}
    known = {subject for subject, each in made.items() if each.facts}
    if not known:
        raise DataError(
            "the model says nothing steady about any of these people",
            expected="pictures or names of people whom it knows",
            got=f"{len(pictures)} pictures and {len(names)} names",
            fix="give others, or run without rows about others",
        )
    # Tagged as what a run asks by itself: the base's distribution over these answers must stay, not their words alone.
    rows = [
        replace(row, tags=(REPLAY, "crossed" if row.images else "names"))
        for each in made.values()
        for row in (*each.facts, *each.forget, *each.held_out, *each.retain)
    ]
    silent = [place for place, row in enumerate(shown) if row.subject not in known]
    return rows, silent, [name for subject, name in named.items() if subject not in known]
