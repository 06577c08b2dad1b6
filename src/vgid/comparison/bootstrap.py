"""How sure a comparison is: a paired bootstrap over seeds and, within each, over people.

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
Array = NDArray[np.float64]


class Answers(NamedTuple):
    """One model on one split: whom each question is about, and whether it was answered."""

    subjects: Sequence[str]
    accuracy: Sequence[float]


Splits = Mapping[str, Answers]


class Trio(NamedTuple):
    """Three models of one seed: the one to score, the base, the retrained one; all were asked the same."""

    model: Splits
    base: Splits
    retrained: Splits


class Draws(NamedTuple):
    """A score for each draw, `[d]` each."""

    composite: Array
    forgetting: Array
    utility: Array


class Difference(NamedTuple):
    """How much better one method is than another: 95 % interval, and how often chance leaves nothing of it (one-sided)."""

    mean: float
    interval: Interval
    p_value: float


def score_draws(trios: Sequence[Trio], *, draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draw as many seeds as there are, then people within each seed, and score every draw: means over the seeds drawn.

    The same `seed` draws the same seeds and people whichever model is scored, so that draws of two models are pairs. People to forget
    and people to keep are drawn apart; splits about the same people see the same ones drawn.

    Raises:
        DataError: there is no seed.
    """
    if not trios:
        raise DataError("a bootstrap needs runs", expected="at least one seed", got="none")
    drawn = np.random.default_rng([seed, 0]).integers(len(trios), size=(len(trios), draws))
    total = np.zeros((3, draws))
    for place, chosen in enumerate(drawn):
        each = np.stack([_scored(trio, draws, [seed, 1, place, number]) for number, trio in enumerate(trios)])  # [seeds, 3, d]
        total += each[chosen, :, np.arange(draws)].T
    return Draws(*(total / len(trios)))


def difference(one: Draws, other: Draws) -> Difference:
    """Whether `one` has the better composite: p = (1 + draws in which it has not) / (1 + draws)."""
    d = one.composite - other.composite
    return Difference(float(d.mean()), percentiles(d), (1 + int((d <= 0).sum())) / (1 + len(d)))


def _scored(trio: Trio, draws: int, seed: Sequence[int]) -> Array:
    """`[3, d]`: composite, forgetting, utility."""
    forgetting, utility = np.ones(draws), np.ones(draws)
    for split in (*FORGETTING, *UTILITY):
        if split not in trio.model:
            continue
        model, base, retrained = (_means(splits[split], split, draws, seed) for splits in trio)
        if split in FORGETTING:
            forgetting = np.minimum(forgetting, 1 - np.maximum(0, model - retrained))
        else:
            known = base > 0
            utility = np.minimum(utility, np.divide(model, base, out=np.ones(draws), where=known))
    both = forgetting + utility
    return np.stack([np.divide(2 * forgetting * utility, both, out=np.zeros(draws), where=both > 0), forgetting, utility])


def _means(answers: Answers, split: str, draws: int, seed: Sequence[int]) -> Array:
    """The mean over the questions about the people of each draw: `[d]`."""
    people, group = np.unique(np.asarray(answers.subjects, dtype=str), return_inverse=True)
    sums, counts = np.bincount(group, weights=answers.accuracy), np.bincount(group)
    stratum = zlib.crc32("\n".join(["forget" if split.startswith("forget") else "keep", *people]).encode())
    rng = np.random.default_rng([*seed, stratum])
    times = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)  # [d, p]
    return np.asarray((times @ sums) / (times @ counts), dtype=np.float64)
