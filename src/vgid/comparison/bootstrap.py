"""Uncertainty of a comparison: a paired bootstrap over seeds and, within each seed, over people.

Two levels are drawn, as in a hierarchical bootstrap (Davison & Hinkley, 1997, section 3.8).

Shapes: d draws, p people.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.comparison.scores import FORGETTING, UTILITY
from vgid.errors import DataError
from vgid.evaluation.statistics import Interval, percentiles

DRAWS = 2000
"""Draws of the bootstrap: enough for two digits of a 95 % interval, and for p-values down to 1 / 2001."""
Array = NDArray[np.float64]


class SplitAnswers(NamedTuple):
    """A model's answers to one split.

    Attributes:
        subjects: the person whom each question is about.
        accuracy: for each question, 1 if the answer is right, else 0.
    """

    subjects: Sequence[str]
    accuracy: Sequence[float]


AnswersBySplit = Mapping[str, SplitAnswers]
"""A model's answers by split."""


class SeedAnswers(NamedTuple):
    """Answers of the three models of one seed to the same questions.

    Attributes:
        model: answers of the model to score.
        base: answers before unlearning.
        reference: answers of the model that was trained without the forget set.
    """

    model: AnswersBySplit
    base: AnswersBySplit
    reference: AnswersBySplit


class Draws(NamedTuple):
    """The scores of each draw, `[d]` each."""

    composite: Array
    forgetting: Array
    utility: Array


class Difference(NamedTuple):
    """How much better one method is than another.

    Attributes:
        mean: mean difference of their composites.
        interval: its 95 % interval.
        p_value: how often chance leaves nothing of the lead, one-sided.
    """

    mean: float
    interval: Interval
    p_value: float


def score_draws(seeds: Sequence[SeedAnswers], *, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draw as many seeds as there are, draw people within each, and score every draw.

    The same `seed` draws the same seeds and people whichever model is scored, so the draws of two models are pairs. People to forget and
    people to retain are drawn separately; splits about the same people use the same draw.

    Args:
        seeds: the answers of each seed.
        draws: number of draws, d.
        seed: random seed of the draws.

    Returns:
        For each draw the means over its seeds, `[d]` each.

    Raises:
        DataError: there is no seed.
    """
    if not seeds:
        raise DataError("a bootstrap needs runs", expected="at least one seed", got="none")
    drawn = np.random.default_rng([seed, 0]).integers(len(seeds), size=(len(seeds), draws))
    total = np.zeros((3, draws))
    for place, chosen in enumerate(drawn):
        each = np.stack([_scored(answers, draws, [seed, 1, place, number]) for number, answers in enumerate(seeds)])  # [seeds, 3, d]
        total += each[chosen, :, np.arange(draws)].T
    return Draws(*(total / len(seeds)))


def difference(one: Draws, other: Draws) -> Difference:
    """Compare the composites of two methods, paired by draw.

    The p-value is (1 + draws in which `one` does not lead) / (1 + draws), which is never 0 (Davison & Hinkley, 1997, section 4.2).
    """
    d = one.composite - other.composite
    return Difference(float(d.mean()), percentiles(d), (1 + int((d <= 0).sum())) / (1 + len(d)))


def _scored(answers: SeedAnswers, draws: int, seed: Sequence[int]) -> Array:
    """Score the draws of one seed: `[3, d]` with composite, forgetting and utility, as `vgid.comparison.scores.score` defines them."""
    forgetting, utility = np.ones(draws), np.ones(draws)
    for split in (*FORGETTING, *UTILITY):
        if split not in answers.model:
            continue
        model, base, reference = (_means(splits[split], split, draws, seed) for splits in answers)
        if split in FORGETTING:
            forgetting = np.minimum(forgetting, 1 - np.maximum(0, model - reference))
        else:
            known = base > 0
            utility = np.minimum(utility, np.divide(model, base, out=np.ones(draws), where=known))
    both = forgetting + utility
    return np.stack([np.divide(2 * forgetting * utility, both, out=np.zeros(draws), where=both > 0), forgetting, utility])


def _means(answers: SplitAnswers, split: str, draws: int, seed: Sequence[int]) -> Array:
    """Return the accuracy over the questions about the people of each draw: `[d]`."""
    people, group = np.unique(np.asarray(answers.subjects, dtype=str), return_inverse=True)
    sums, counts = np.bincount(group, weights=answers.accuracy), np.bincount(group)
    # Splits about the same people have the same stratum, and with it the same draws.
    stratum = zlib.crc32("\n".join(["forget" if split.startswith("forget") else "keep", *people]).encode())
    rng = np.random.default_rng([*seed, stratum])
    times = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)  # [d, p]
    return np.asarray((times @ sums) / (times @ counts), dtype=np.float64)
