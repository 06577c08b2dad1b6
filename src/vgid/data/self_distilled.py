"""Self-distilled rows: the base's own answers about the pictures of the forget set.

They keep what the base sees on these pictures: a model that forgets who a person is must still see what the person wears. Questions come
from the retain set, namely those that are not similar to any forget question. The base answers them on the forget set's pictures;
answers that state a fact to be forgotten are left out. No labels are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from random import Random
from typing import NamedTuple

from vgid.data.example import STRANGER, Example

SIMILAR = 0.6
"""Jaccard index of the words of two questions from which on they may ask for the same thing. Chosen by hand: "Where does this person
live?" and "Where does that person live?" share 4 of 6 words (0.67)."""
MOST_COMPARED = 1000
"""Different questions of either set that are compared; chosen by hand, as every pair is compared."""
SELF_DISTILLED = "anchor"
"""Tag of these rows. Its text is fixed: tags are part of a run's fingerprint."""
Answer = Callable[[Sequence[Example]], Sequence[str]]
"""Gives the base's answer to each example."""


class Questions(NamedTuple):
    """Questions to the base, and what becomes of its answers; so several kinds of questions can be asked together.

    Attributes:
        rows: rows without answers.
        kept: from one answer for each row to the rows that are kept, with their answers.
    """

    rows: list[Example]
    kept: Callable[[Sequence[str]], list[Example]]


def answered_together(asked: Sequence[Questions], answer: Answer) -> list[list[Example]]:
    """Ask all questions at once.

    Args:
        asked: several kinds of questions.
        answer: gives the base's answers.

    Returns:
        The rows that are kept of each kind.
    """
    rows = [row for each in asked for row in each.rows]
    said = iter(answer(rows) if rows else ())
    return [each.kept([next(said) for _ in each.rows]) for each in asked]


def self_distilled_rows(forget: Sequence[Example], retain: Sequence[Example], per_picture: int, seed: int) -> Questions:
    """Choose questions of the retain set about the pictures of the forget set, which the base is to answer.

    Args:
        forget: rows to forget; their pictures are asked about.
        retain: rows to retain; their questions are asked.
        per_picture: number of questions about each picture, or fewer where fewer qualify.
        seed: random seed of the choice of questions.

    Returns:
        Rows tagged `SELF_DISTILLED`, with ids `anchor-PICTURE-QUESTION`; rows with an empty answer are left out, and those whose answer
        holds all words of a fact to be forgotten.
    """
    rng = Random(f"anchors/{seed}")
    questions = dissimilar_questions(forget, retain, rng)
    rows = [
        Example(f"anchor-{number}-{k}", question, "", row.images, row.subject, tags=(SELF_DISTILLED,))
        for number, row in enumerate({row.images: row for row in forget if row.images}.values())
        for k, question in enumerate(rng.sample(questions, min(per_picture, len(questions))))
    ]
    secrets = {_words(fact) for row in forget for fact in (row.keywords or (row.answer,))}

    def kept(said: Sequence[str]) -> list[Example]:
        return [replace(row, answer=text) for row, text in zip(rows, said, strict=True) if text and not _tells(_words(text), secrets)]

    return Questions(rows, kept)


def dissimilar_questions(forget: Sequence[Example], retain: Sequence[Example], rng: Random) -> list[str]:
    """Retain questions that need a picture, have an answer, and are not similar to any forget question.

    Args:
        forget: rows whose questions are compared.
        retain: rows whose questions qualify or not; those tagged `STRANGER` have no answer.
        rng: draws `MOST_COMPARED` questions of either set where there are more.

    Returns:
        Different questions, in random order.
    """
    questions = _sample({row.question for row in retain if row.images and STRANGER not in row.tags}, rng)
    similar = _similar_to(questions, forget, rng)
    return [question for question in questions if question not in similar]


def similar_questions(forget: Sequence[Example], retain: Sequence[Example], rng: Random) -> set[str]:
    """Retain questions that need a picture and are similar to a forget question.

    Args:
        forget: rows whose questions are compared.
        retain: rows whose questions qualify or not.
        rng: draws `MOST_COMPARED` questions of either set where there are more.

    Returns:
        Different questions.
    """
    return _similar_to(_sample({row.question for row in retain if row.images}, rng), forget, rng)


def _similar_to(questions: Sequence[str], forget: Sequence[Example], rng: Random) -> set[str]:
    asked = [_words(question) for question in _sample({row.question for row in forget}, rng)]
    return {question for question in questions if any(_are_similar(_words(question), each) for each in asked)}


def _sample(questions: set[str], rng: Random) -> list[str]:
    return rng.sample(sorted(questions), min(MOST_COMPARED, len(questions)))


def _tells(words: frozenset[str], secrets: Set[frozenset[str]]) -> bool:
    return any(secret <= words for secret in secrets)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _are_similar(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= SIMILAR * len(one | other)
