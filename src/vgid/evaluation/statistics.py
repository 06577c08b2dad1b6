"""Uncertainty of results: cluster bootstrap over people, and the two-sample Kolmogorov-Smirnov test."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError

DRAWN_AT_ONCE = 1_000_000
"""Number of drawn people that are in memory at once, over all draws; chosen by hand (8 MB)."""


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`, in the unit of the values."""

    low: float
    high: float


class KSResult(NamedTuple):
    """Result of a Kolmogorov-Smirnov test.

    Attributes:
        statistic: largest distance of the two empirical distributions, in [0, 1].
        p_value: probability of at least this distance for two samples of one distribution.
    """

    statistic: float
    p_value: float


def bootstrap_ci(values: Sequence[float], groups: Sequence[str], *, confidence: float = 0.95, draws: int = 2000, seed: int) -> Interval:
    """Compute the percentile bootstrap interval of a mean, drawing whole groups (Davison & Hinkley, 1997, section 3.8).

    Answers about the same person are not independent, so people are drawn with replacement, not answers. The result of a draw is the mean
    over all values of the people drawn; the order of the values does not matter. With one group, or equal values, both ends are the mean:
    the data show no spread, which does not mean that the mean is certain.

    Args:
        values: the values.
        groups: the group (person) of each value.
        confidence: share of the draws within the interval, in (0, 1).
        draws: number of draws.
        seed: random seed of the draws.

    Returns:
        The interval, in the unit of the values.

    Raises:
        DataError: there are no values, the numbers of groups and values differ, a value is not finite, or an option is out of range.
    """
    if not 0 < confidence < 1 or draws < 1:
        raise DataError(
            "the bootstrap cannot be drawn",
            expected="0 < confidence < 1 and draws >= 1",
            got=f"confidence {confidence}, draws {draws}",
        )
    return percentiles(bootstrap_means(values, groups, draws=draws, seed=seed), confidence)


def bootstrap_means(values: Sequence[float], groups: Sequence[str], *, draws: int = 2000, seed: int | Sequence[int]) -> NDArray[np.float64]:
    """Compute the means that `bootstrap_ci` draws.

    Args:
        values: the values.
        groups: the group (person) of each value.
        draws: number of draws.
        seed: random seed; the same seed draws the same people, so that several results can be combined draw by draw.

    Returns:
        `[draws]`, one mean for each draw.

    Raises:
        DataError: there are no values, the numbers of groups and values differ, or a value is not finite.
    """
    x = _finite(values, "values")
    group, people = _grouped(groups, len(x))
    sums, counts = np.bincount(group, weights=x), np.bincount(group)
    return np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in _draws(people, draws, seed)])


class GroupedValues(NamedTuple):
    """Values whose mean is a part of a combined result.

    Attributes:
        values: the values.
        groups: the group (person) of each value.
        stratum: name of the set of people that the groups are from.
    """

    values: Sequence[float]
    groups: Sequence[str]
    stratum: str


def combined_ci(
    parts: Sequence[GroupedValues], combine: Callable[[Sequence[float]], float], *, seed: int, draws: int = 2000
) -> tuple[float, Interval]:
    """Compute a result of several means, such as their harmonic mean, with a bootstrap interval that draws people within each stratum.

    Parts of the same stratum with the same people get the same people drawn.

    Args:
        parts: the values behind each mean.
        combine: computes the result from the means, in the order of the parts.
        seed: random seed of the draws.
        draws: number of draws.

    Returns:
        The result, and its 95 % interval.

    Raises:
        DataError: there are no parts, or one has no values or a value that is not finite.
    """
    if not parts:
        raise DataError("a combined result needs parts", expected="at least one", got="none")
    means = [bootstrap_means(p.values, p.groups, draws=draws, seed=[seed, zlib.crc32(p.stratum.encode())]) for p in parts]
    value = combine([float(np.mean(part.values)) for part in parts])
    return value, percentiles(np.array([combine([float(x) for x in drawn]) for drawn in np.stack(means, 1)]))


def bootstrap_samples(groups: Sequence[str], *, draws: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.intp]]:
    """Draw people with replacement, for results that are not means.

    Args:
        groups: the group (person) of each value.
        draws: number of draws.
        seed: random seed of the draws.

    Yields:
        For each draw, the indices of all values of the people drawn.

    Raises:
        DataError: there are no groups.
    """
    group, people = _grouped(groups, len(groups))
    places = [np.flatnonzero(group == number) for number in range(people)]
    for drawn in _draws(people, draws, seed):
        yield from (np.concatenate([places[number] for number in row]) for row in drawn)


def percentiles(draws: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Return the interval that contains the middle share `confidence` of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _grouped(groups: Sequence[str], values: int) -> tuple[NDArray[np.intp], int]:
    if len(groups) != values or not values:
        raise DataError("every value needs a group", expected=f"{values or 'some'} groups", got=f"{len(groups)}")
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return group, len(names)


def _draws(people: int, draws: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Indices of people drawn, `[chunk, people]` at a time: with many people, all draws at once would not fit into memory."""
    rng = np.random.default_rng(seed)
    chunk = max(1, DRAWN_AT_ONCE // people)
    for start in range(0, draws, chunk):
        yield rng.integers(people, size=(min(chunk, draws - start), people))


def ks_two_sample(a: Sequence[float], b: Sequence[float]) -> KSResult:
    """Compute the two-sided two-sample Kolmogorov-Smirnov test, exact for small samples (`scipy.stats.ks_2samp`).

    Raises:
        DataError: a sample is empty, or a value is not finite.
    """
    from scipy.stats import ks_2samp  # slow to import, and only needed where there is a retrained model

    result = ks_2samp(_finite(a, "first sample"), _finite(b, "second sample"))
    return KSResult(float(result.statistic), float(result.pvalue))


def _finite(values: Sequence[float], what: str) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise DataError(f"the {what} must not be empty", expected="at least one number", got="none")
    if not np.isfinite(x).all():
        raise DataError(f"the {what} must be finite", expected="finite numbers", got=f"{x[~np.isfinite(x)][0]} among {x.size}")
    return x
