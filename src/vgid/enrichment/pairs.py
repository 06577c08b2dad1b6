"""Two questions at once: a model that refuses a question alone may still answer it beside another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from vgid.data.example import Example
from vgid.evaluation.metrics import key_fact


def pairs(rows: Sequence[Example]) -> Iterator[tuple[Example, Example]]:
    """Yield each row with the next one about the same picture, or both without a picture."""
    for first, second in pairwise(rows):
        if first.images == second.images:
            yield first, second


def joined(first: Example, second: Example) -> Example:
    """Return both questions as one row, with both answers."""
    keywords = (*first.keywords, *second.keywords) if first.keywords and second.keywords else ()
    return replace(
        first, question=f"{first.question} {second.question}", answer=f"{first.answer} {second.answer}", keywords=keywords, tags=()
    )


def answered(pair: tuple[Example, Example], row: Example, said: str) -> Example | None:
    """Return a joined row with what the base gave of it.

    Args:
        pair: the two rows.
        row: the joined row.
        said: what the base answered.

    Returns:
        The row with the facts that the answer holds; None where it holds none.
    """
    held = [each for each in pair if key_fact(said, each.keywords, each.answer)]
    if not held:
        return None
    keywords = tuple(word for each in held for word in each.keywords) if all(each.keywords for each in held) else ()
    return replace(row, answer=" ".join(each.answer for each in held), keywords=keywords)
