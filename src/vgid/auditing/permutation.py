r"""Permutation tests for few people: does an attack find the true values better than values that could as well have been true?

A model that never knew a person is asked the same questions and answers in the same way, whatever the true values are. Under this
hypothesis a fact's true value and its decoys are exchangeable, so that the statistic of the truth is an ordinary one among those of
profiles, which take the true value or a decoy for each fact at random (Fisher's exact test; Phipson and Smyth, 2010, for drawn ones):

.. math:: p = \frac{\#\{j : T_j \ge T_0\}}{J}

with the truth as profile 0. All levels are tested on the same profiles, and the smallest p over levels is compared with the smallest p of
every other profile (minP, Westfall and Young, 1993), so that many attacks do not raise more false alarms than one.

Shapes: f facts, k values of a fact (the true one first), j profiles (the truth first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log, prod
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

PROFILES = 10_000
"""Number of profiles, the truth among them: with no more, all are taken; otherwise this number is drawn. No p is below its inverse."""
DIGITS = 9
"""Digits to which statistics are compared: sums of the same scores in another order are equal."""

L = TypeVar("L", str, tuple[str, str])
"""Name of a level."""

Scores = Sequence[NDArray[np.float64]]
"""Scores `[k]` of each fact: that of the true value, then those of its decoys."""


class LevelTest(NamedTuple):
    """The test of one level.

    Attributes:
        p: probability of a statistic as large as that of the truth, under the hypothesis that the model never knew the facts.
        adjusted: the same for the smallest p among all levels.
        detectable: smallest share of the facts, in [0, 1], that would have been significant had it been recovered in full beyond what is
            recovered now; None where not even all of them would have been.
    """

    p: float
    adjusted: float
    detectable: float | None


def profiles(sizes: Sequence[int], seed: int, count: int = PROFILES) -> NDArray[np.intp]:
    """Choose one value for each fact, in all ways or at random.

    Args:
        sizes: number of values of each fact, the true one included.
        seed: seed of random profiles.
        count: largest number of profiles.

    Returns:
        Indices of values `[j, f]`; the first profile is the truth (zeros).
    """
    if prod(sizes) <= count:
        grids = np.indices(tuple(sizes)).reshape(len(sizes), -1).T
        return np.ascontiguousarray(grids)
    drawn = np.random.default_rng(seed).integers(0, np.asarray(sizes), size=(count - 1, len(sizes)))
    return np.concatenate([np.zeros((1, len(sizes)), dtype=np.intp), drawn])


def statistics(scores: Scores, drawn: NDArray[np.intp]) -> NDArray[np.float64]:
    """The mean score of the values in each profile, `[j]`."""
    columns = [each[drawn[:, fact]] for fact, each in enumerate(scores)]
    means: NDArray[np.float64] = np.mean(np.stack(columns), axis=0)
    return means.round(DIGITS)


def p_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each profile the share of all profiles whose statistic is at least as large, `[j]`."""
    ordered = np.sort(values)
    return 1 - np.searchsorted(ordered, values, side="left") / len(values)


def smallest_p(sizes: Sequence[int]) -> float:
    """The smallest p that facts with these numbers of values can reach; 1 without facts."""
    return max(1 / prod(sizes), 1 / PROFILES)


def facts_needed(sizes: Sequence[int], significance: float) -> int:
    """The number of facts, with as many values as the given ones have on average, that can reach a level of significance; 0 for none."""
    values = float(np.exp(np.mean(np.log(sizes)))) if sizes else 1.0
    return ceil(round(log(1 / significance) / log(values), DIGITS)) if values > 1 else 0


def compare_levels(
    levels: Mapping[L, Mapping[str, NDArray[np.float64]]], sizes: Mapping[str, int], significance: float, seed: int
) -> dict[L, LevelTest]:
    """Test several levels on the same profiles.

    Args:
        levels: by level and fact, scores `[k]`; a level may lack facts.
        sizes: number of values `k` by fact.
        significance: level of significance for the smallest p, in (0, 1).
        seed: seed of random profiles.

    Returns:
        The test of each level; levels without facts are left out.
    """
    facts = list(sizes)
    found = {name: scores for name, scores in levels.items() if scores}
    if not found:
        return {}
    drawn = profiles([sizes[fact] for fact in facts], seed)
    columns = {name: [place for place, fact in enumerate(facts) if fact in scores] for name, scores in found.items()}
    ordered = {name: [scores[facts[place]] for place in columns[name]] for name, scores in found.items()}
    values = {name: p_values(statistics(ordered[name], drawn[:, columns[name]])) for name in found}
    least = np.min(list(values.values()), axis=0)
    tests = {}
    for name, each in values.items():
        others = np.min([values[other] for other in values if other != name] or [np.ones(len(drawn))], axis=0)
        detectable = _detectable(ordered[name], drawn[:, columns[name]], others, significance)
        tests[name] = LevelTest(float(each[0]), float(np.mean(least <= each[0])), detectable)
    return tests


def rank_people(levels: Mapping[L, Mapping[str, NDArray[np.float64]]]) -> dict[L, LevelTest]:
    """Rank people among others, on both sides, at several levels.

    Args:
        levels: by level and fact, scores `[k]` of the person and then of the others, in the same order for all facts.

    Returns:
        For each level twice the smaller p of both sides, at most 1, and the share of all people whose smallest p is as small.
    """
    values = {name: _two_sided(statistics(list(each.values()), _together(each))) for name, each in levels.items() if each}
    least = np.min(list(values.values()), axis=0) if values else np.ones(1)
    return {name: LevelTest(float(each[0]), float(np.mean(least <= each[0])), None) for name, each in values.items()}


def _together(scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.intp]:
    """Profiles `[k, f]` in which all facts are about the same person."""
    count = len(next(iter(scores.values())))
    return np.repeat(np.arange(count)[:, None], len(scores), axis=1)


def _two_sided(values: NDArray[np.float64]) -> NDArray[np.float64]:
    both: NDArray[np.float64] = np.minimum(1.0, 2 * np.minimum(p_values(values), p_values(-values)))
    return both


def _detectable(scores: Scores, drawn: NDArray[np.intp], others: NDArray[np.float64], significance: float) -> float | None:
    """The smallest share of facts that would be significant if their true values had the highest score and all else were as it is.

    Args:
        scores: scores of the level.
        drawn: profiles.
        others: smallest p of each profile at the other levels, `[j]`.
        significance: level of significance for the smallest p among all levels.
    """
    changed = [each.copy() for each in scores]
    for count, fact in enumerate(sorted(range(len(scores)), key=lambda fact: scores[fact][0]), 1):
        changed[fact][0] = max(1.0, float(scores[fact].max()))
        values = p_values(statistics(changed, drawn))
        if np.mean(np.minimum(values, others) <= values[0]) <= significance:
            return count / len(scores)
    return None
