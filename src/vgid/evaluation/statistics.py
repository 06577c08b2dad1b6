"""How sure a figure is: cluster bootstrap over people, and the two-sample Kolmogorov-Smirnov test."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError

DRAWN_AT_ONCE = 1_000_000
"""People, over all draws that are held at once."""


class Interval(NamedTuple):
    """A confidence interval, in the unit of the values."""

    low: float
    high: float


class KSResult(NamedTuple):
    """`statistic`: largest distance of the two distributions, in [0, 1]; `p_value`: how often chance gives as much."""

    statistic: float
    p_value: float


def bootstrap_ci(values: Sequence[float], groups: Sequence[str], *, confidence: float = 0.95, draws: int = 2000, seed: int) -> Interval:
    """Percentile bootstrap interval of the mean that draws whole groups (Davison & Hinkley, 1997, section 3.8).

    Questions about the same person stand and fall together, so people are drawn with replacement, not questions. A
    draw's figure is the mean over all values of the people drawn; the order of the values does not matter. With one
    group, or equal values, both ends are the mean: the data show no spread, which does not make the figure certain.

    Raises:
        DataError: no values, more or fewer groups than values, a value that is not finite, or an option out of range.
    """
    if not 0 < confidence < 1 or draws < 1:
        raise DataError(
            "the bootstrap cannot be drawn",
            expected="0 < confidence < 1 and draws >= 1",
            got=f"confidence {confidence}, draws {draws}",
        )
    return percentiles(bootstrap_means(values, groups, draws=draws, seed=seed), confidence)


def bootstrap_means(values: Sequence[float], groups: Sequence[str], *, draws: int = 2000, seed: int | Sequence[int]) -> NDArray[np.float64]:
    """The means of `bootstrap_ci`, one for each draw; the same seed draws the same people, so that several figures can be combined.

    Raises:
        DataError: no values, more or fewer groups than values, or a value that is not finite.
    """
    x = _finite(values, "values")
    group, people = _grouped(groups, len(x))
    sums, counts = np.bincount(group, weights=x), np.bincount(group)
    return np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in _draws(people, draws, seed)])


class GroupedValues(NamedTuple):
    """Values whose mean goes into a combined figure: one group (person) a value, and the set of people they are from."""

    values: Sequence[float]
    groups: Sequence[str]
    stratum: str


def combined_ci(
    parts: Sequence[GroupedValues], combine: Callable[[Sequence[float]], float], *, seed: int, draws: int = 2000
) -> tuple[float, Interval]:
    """A figure made of several means, such as their harmonic mean, with the bootstrap interval that draws people within each stratum.

    Parts of one stratum that are about the same people see the same people drawn.

    Raises:
        DataError: no parts, or a part without values or with one that is not finite.
    """
    if not parts:
        raise DataError("a combined figure needs parts", expected="at least one", got="none")
    means = [bootstrap_means(p.values, p.groups, draws=draws, seed=[seed, zlib.crc32(p.stratum.encode())]) for p in parts]
    value = combine([float(np.mean(part.values)) for part in parts])
    return value, percentiles(np.array([combine([float(x) for x in drawn]) for drawn in np.stack(means, 1)]))


def bootstrap_samples(groups: Sequence[str], *, draws: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.intp]]:
    """Draw people with replacement and give the places of all their values: for figures that are no means.

    Raises:
        DataError: there are no groups.
    """
    group, people = _grouped(groups, len(groups))
    places = [np.flatnonzero(group == number) for number in range(people)]
    for drawn in _draws(people, draws, seed):
        yield from (np.concatenate([places[number] for number in row]) for row in drawn)


def percentiles(draws: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """The interval that holds the middle part of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _grouped(groups: Sequence[str], values: int) -> tuple[NDArray[np.intp], int]:
    if len(groups) != values or not values:
        raise DataError("every value needs a group", expected=f"{values or 'some'} groups", got=f"{len(groups)}")
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return group, len(names)


def _draws(people: int, draws: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Draws `[some, people]`, some at a time: a matrix of all draws would not fit for many people."""
    rng = np.random.default_rng(seed)
    some = max(1, DRAWN_AT_ONCE // people)
    for start in range(0, draws, some):
        yield rng.integers(people, size=(min(some, draws - start), people))


def ks_two_sample(a: Sequence[float], b: Sequence[float]) -> KSResult:
    """Two-sided two-sample Kolmogorov-Smirnov test, exact for small samples (`scipy.stats.ks_2samp`).

    Raises:
        DataError: an empty sample, or a value that is not finite.
    """
    from scipy.stats import ks_2samp  # heavy, and only needed with a retrained model at hand

    result = ks_2samp(_finite(a, "first sample"), _finite(b, "second sample"))
    return KSResult(float(result.statistic), float(result.pvalue))


def _finite(values: Sequence[float], what: str) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise DataError(f"the {what} must not be empty", expected="at least one number", got="none")
    if not np.isfinite(x).all():
        raise DataError(f"the {what} must be finite", expected="finite numbers", got=f"{x[~np.isfinite(x)][0]} among {x.size}")
    return x
