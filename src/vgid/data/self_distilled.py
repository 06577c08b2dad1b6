"""Anchors: what the base sees on the pictures of forgotten people, so that forgetting who they are does not blind it to what they wear.

Questions about pictures are taken from the retain set, those that are like no forget question. The base answers them on the forget
set's pictures, and answers that say anything of what is to be forgotten are left out. No labels are needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from vgid.data.example import STRANGER, Example

ALIKE = 0.6
"""Questions that share so large a part of their words (Jaccard index) may ask for the same thing."""
LOOKED_AT = 1000
"""Different questions of either set that are compared at most."""
SELF_DISTILLED = "anchor"
"""Tag of such rows."""
Answer = Callable[[Sequence[Example]], Sequence[str]]


def self_distilled_rows(forget: Sequence[Example], retain: Sequence[Example], per_picture: int, seed: int, answer: Answer) -> list[Example]:
    """Up to `per_picture` questions about each picture of the forget set, with the base's own answers.

    Args:
        forget: whose pictures are looked at.
        retain: whose questions are asked.
        per_picture: questions about each picture.
        seed: of the choice.
        answer: gives the base's answers.
    """
    rng = Random(f"anchors/{seed}")
    questions = dissimilar_questions(forget, retain, rng)
    rows = [
        Example(f"anchor-{number}-{k}", question, "", row.images, row.subject, tags=(SELF_DISTILLED,))
        for number, row in enumerate({row.images: row for row in forget if row.images}.values())
        for k, question in enumerate(rng.sample(questions, min(per_picture, len(questions))))
    ]
    secrets = [_words(fact) for row in forget for fact in (row.keywords or (row.answer,))]
    return [
        Example(row.id, row.question, said, row.images, row.subject, tags=row.tags)
        for row, said in zip(rows, answer(rows) if rows else (), strict=True)
        if said and not any(secret <= _words(said) for secret in secrets)
    ]


def dissimilar_questions(forget: Sequence[Example], retain: Sequence[Example], rng: Random) -> list[str]:
    """Questions about pictures that are like no forget question, and not such as nobody can answer."""
    questions = _some({row.question for row in retain if row.images and STRANGER not in row.tags}, rng)
    alike = _alike_to(questions, forget, rng)
    return [question for question in questions if question not in alike]


def similar_questions(forget: Sequence[Example], retain: Sequence[Example], rng: Random) -> set[str]:
    """Questions about pictures that are like a forget question."""
    return _alike_to(_some({row.question for row in retain if row.images}, rng), forget, rng)


def _alike_to(questions: Sequence[str], forget: Sequence[Example], rng: Random) -> set[str]:
    asked = [_words(question) for question in _some({row.question for row in forget}, rng)]
    return {question for question in questions if any(_alike(_words(question), each) for each in asked)}


def _some(questions: set[str], rng: Random) -> list[str]:
    return rng.sample(sorted(questions), min(LOOKED_AT, len(questions)))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= ALIKE * len(one | other)
