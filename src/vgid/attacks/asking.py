"""Shared by attacks that ask questions: ask in several ways, and see whether any of the answers holds the fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from vgid.attacks.base import Material, Outcome, Outcomes
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
    return ask_with_decoys(loaded, rows, variants, {}, batch_size).rows


class Found(NamedTuple):
    """Scores of answers, by row id.

    Attributes:
        rows: 1 where the fact was found, else 0.
        decoys: the same for the decoys of a row, in their order; empty for rows without decoys.
    """

    rows: dict[str, float]
    decoys: dict[str, list[float]]

    @classmethod
    def of(cls, parts: Sequence[Found]) -> Found:
        """Join the scores of different rows."""
        return cls({id: x for part in parts for id, x in part.rows.items()}, {id: x for part in parts for id, x in part.decoys.items()})

    def outcome(self, material: Material) -> Outcome:
        """The outcome of a level, of the rows that were asked."""
        found = self.rows
        forget, control = ({row.id: found[row.id] for row in part if row.id in found} for part in (material.forget, material.retain))
        return Outcome(forget, control, decoys={id: scores for id, scores in self.decoys.items() if id in forget})


def ask_with_decoys(
    loaded: LoadedModel, rows: Sequence[Example], variants: Variants, decoys: Mapping[str, Sequence[Example]], batch_size: int = 64
) -> Found:
    """Ask as `ask` does, and look in the same answers for the values of decoys.

    Args:
        loaded: the model.
        rows: the rows.
        variants: gives the variants of a row.
        decoys: by row id, the row with other values.
        batch_size: number of questions that are asked at once.

    Returns:
        The scores of rows and decoys; rows without a variant are missing.
    """
    asked = [(row, variant) for row in rows for variant in variants(row)]
    said = _said(loaded, [variant for _, variant in asked], batch_size)
    answers: dict[str, list[str]] = {}
    for (row, _), answer in zip(asked, said, strict=True):
        answers.setdefault(row.id, []).append(answer)
    return find(rows, answers, decoys, _holds)


def find(
    rows: Sequence[Example],
    answers: Mapping[str, Sequence[str]],
    decoys: Mapping[str, Sequence[Example]],
    holds: Callable[[Example, str], bool],
) -> Found:
    """Look for true values and decoys in answers.

    Args:
        rows: the rows.
        answers: answers by row id; rows without answers are left out.
        decoys: by row id, the row with other values.
        holds: whether an answer holds the fact of a row.

    Returns:
        For each row and each decoy, 1 where any of the answers holds it, else 0.
    """

    def score(row: Example, texts: Sequence[str]) -> float:
        return float(any(holds(row, text) for text in texts))

    given = [row for row in rows if row.id in answers]
    return Found(
        {row.id: score(row, answers[row.id]) for row in given},
        {row.id: [score(each, answers[row.id]) for each in decoys[row.id]] for row in given if row.id in decoys},
    )


def outcome(loaded: LoadedModel, material: Material, variants: Variants) -> Outcome | None:
    """Ask about forget and retain rows in the same ways.

    Args:
        loaded: the model.
        material: the rows.
        variants: gives the variants of a row.

    Returns:
        The scores of `ask` for forget and retain rows; None where no forget row has a variant.
    """
    return outcomes(loaded, material, {"": variants}).get("")


def outcomes(loaded: LoadedModel, material: Material, levels: Mapping[str, Variants]) -> Outcomes:
    """Ask about forget and retain rows at several levels; all questions are asked together, so that those about one picture share it.

    Args:
        loaded: the model.
        material: the rows.
        levels: by level, what gives the variants of a row.

    Returns:
        The outcome of each level as `outcome` gives it, in the order of `levels`, without those where no forget row has a variant.
    """
    rows = material.everything
    asked = [(level, row, variant) for level, variants in levels.items() for row in rows for variant in variants(row)]
    said = _said(loaded, [variant for _, _, variant in asked], material.batch_size)
    answers: dict[str, dict[str, list[str]]] = {level: {} for level in levels}
    for (level, row, _), answer in zip(asked, said, strict=True):
        answers[level].setdefault(row.id, []).append(answer)
    found = {level: find(rows, each, material.decoys, _holds).outcome(material) for level, each in answers.items()}
    return {level: each for level, each in found.items() if each.forget}


def _said(loaded: LoadedModel, questions: Sequence[Example], batch_size: int) -> list[str]:
    return generate(loaded, questions, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size) if questions else []


def _holds(row: Example, answer: str) -> bool:
    return key_fact(answer, row.keywords, row.answer)


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
