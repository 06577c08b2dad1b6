"""What attacks by questions share: ask in several ways, and see whether the fact comes in any of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from vgid.attacks.base import Material, Outcome
from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact, normalise
from vgid.models.loading import LoadedModel

Variants = Callable[[Example], Iterable[Example]]
"""The ways in which a row is asked."""
MAX_NEW_TOKENS = 32
"""Of an answer: attacks ask for single facts."""


def ask(loaded: LoadedModel, rows: Sequence[Example], variants: Variants, batch_size: int = 64) -> dict[str, float]:
    """By row id: 1 where any way of asking brings the fact, 0 where none does. Rows without a way of asking are left out."""
    asked = [(row, variant) for row in rows for variant in variants(row)]
    said = generate(loaded, [variant for _, variant in asked], max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size) if asked else []
    found: dict[str, float] = {}
    for (row, _), answer in zip(asked, said, strict=True):
        found[row.id] = max(found.get(row.id, 0.0), float(key_fact(answer, row.keywords, row.answer)))
    return found


def outcome(loaded: LoadedModel, material: Material, variants: Variants) -> Outcome | None:
    """Ask about forget and retain rows in the same ways; None where no forget row can be asked so."""
    found = ask(loaded, material.everything, variants, material.batch_size)
    forget = {row.id: found[row.id] for row in material.forget if row.id in found}
    return Outcome(forget, {row.id: found[row.id] for row in material.retain if row.id in found}) if forget else None


def reworded(example: Example, question: str) -> Example:
    """The same row, asked in other words."""
    return replace(example, question=question)


def reveals_fact(text: str, example: Example) -> bool:
    """Whether a text gives away what is asked, or a part of it: then it must not stand in a prompt."""
    wanted = example.keywords or (example.answer,)
    return any(key_fact(text, (word,)) or normalise(word) in normalise(text) for word in wanted)


def first_that_fits(encoder: Encoder, versions: Iterable[Example]) -> Example | None:
    """The first version, longest first, that the model's context takes; None if none does."""
    for version in versions:
        try:
            encoder.row(version, answer=None)
        except DataError:  # longer than the context
            continue
        return version
    return None


def names_of(rows: Iterable[Example]) -> Mapping[str, str]:
    """Names by subject, as far as the answers to questions for a name tell them."""
    names: dict[str, str] = {}
    for row in rows:
        asks = any(word in normalise(row.question).split() for word in ("who", "name", "named", "called", "identify")) or "name" in row.tags
        likely = [word for word in row.keywords if len(word.split()) > 1 and word.istitle()]
        if row.subject and asks and likely:
            names.setdefault(row.subject, likely[0])
    return names
