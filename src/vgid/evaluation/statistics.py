"""How sure a figure is: cluster bootstrap over people, and the two-sample Kolmogorov-Smirnov test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError


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
    x = _finite(values, "values")
    if len(groups) != len(x):
        raise DataError("every value needs a group", expected=f"{len(x)} groups", got=f"{len(groups)}")
    if not 0 < confidence < 1 or draws < 1:
        raise DataError(
            "the bootstrap cannot be drawn",
            expected="0 < confidence < 1 and draws >= 1",
            got=f"confidence {confidence}, draws {draws}",
        )
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums, counts = np.bincount(group, weights=x), np.bincount(group)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):  # one at a time: a matrix of all draws would not fit for many people
        people = rng.integers(len(names), size=len(names))
        means[draw] = sums[people].sum() / counts[people].sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


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
