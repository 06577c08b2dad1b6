"""Shared by attacks that ask questions: ask in several ways, and see whether any of the answers holds the fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from vgid.attacks.base import Material, Outcome
from vgid.data.batching import Encoder
from vgid.data.example import Example, altered
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact, normalise
from vgid.models.loading import LoadedModel

Variants = Callable[[Example], Iterable[Example]]
"""Gives the variants of a row that are asked in its place; none leaves the row out."""
MAX_NEW_TOKENS = 32
"""Length of a generated answer, in tokens: attacks ask for single facts."""


def ask(loaded: LoadedModel, rows: Sequence[Example], variants: Variants, batch_size: int = 64) -> dict[str, float]:
    """Ask every variant of every row, greedily, and score each row by its best answer.

    Args:
        loaded: the model.
        rows: the rows, with the recorded answer or its keywords to look for.
        variants: gives the variants of a row.
        batch_size: number of questions that are asked at once.

    Returns:
        By row id: 1 where the answer to any variant holds the fact, else 0. Rows without a variant are missing.
    """
    asked = [(row, variant) for row in rows for variant in variants(row)]
    said = generate(loaded, [variant for _, variant in asked], max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size) if asked else []
    found: dict[str, float] = {}
    for (row, _), answer in zip(asked, said, strict=True):
        found[row.id] = max(found.get(row.id, 0.0), float(key_fact(answer, row.keywords, row.answer)))
    return found


def outcome(loaded: LoadedModel, material: Material, variants: Variants) -> Outcome | None:
    """Ask about forget and retain rows in the same ways.

    Args:
        loaded: the model.
        material: the rows.
        variants: gives the variants of a row.

    Returns:
        The scores of `ask` for forget and retain rows; None where no forget row has a variant.
    """
    found = ask(loaded, material.everything, variants, material.batch_size)
    forget = {row.id: found[row.id] for row in material.forget if row.id in found}
    return Outcome(forget, {row.id: found[row.id] for row in material.retain if row.id in found}) if forget else None


def reworded(example: Example, question: str) -> Example:
    """The same row with another question."""
    return altered(example, question=question)


def reveals_fact(text: str, example: Example) -> bool:
    """Whether a text holds a row's fact or a part of it; such a text must not stand in a prompt."""
    wanted = example.keywords or (example.answer,)
    return any(key_fact(text, (word,)) or normalise(word) in normalise(text) for word in wanted)


def first_that_fits(encoder: Encoder, versions: Iterable[Example]) -> Example | None:
    """The first of several versions of a prompt, given from longest to shortest, that fits into the model's context; else None."""
    for version in versions:
        try:
            encoder.row(version, answer=None)
        except DataError:  # longer than the context
            continue
        return version
    return None


def names_of(rows: Iterable[Example]) -> Mapping[str, str]:
    """Names by subject, taken from the answers to questions that ask for a name; subjects without such a row are missing."""
    names: dict[str, str] = {}
    for row in rows:
        asks = any(word in normalise(row.question).split() for word in ("who", "name", "named", "called", "identify")) or "name" in row.tags
        likely = [word for word in row.keywords if len(word.split()) > 1 and word.istitle()]
        if row.subject and asks and likely:
            names.setdefault(row.subject, likely[0])
    return names
