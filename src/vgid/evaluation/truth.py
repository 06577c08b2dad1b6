"""Truth ratio, probability among options, model utility, and the distance of a model from one that never saw the data.

Losses are mean negative log-likelihoods of an answer, in nats per token. TOFU (arXiv 2401.06121) and its successors (CLEAR, FIUBench)
compare a reworded right answer with perturbed, wrong ones: r = exp(mean of perturbed losses - loss of the reworded one). A model that
knows the truth has r > 1, one that does not has r near 1. All functions here use log r, which cannot overflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError
from vgid.evaluation.statistics import Interval, bootstrap_samples, ks_two_sample, percentiles

BINS = 20
"""Number of bins of the histograms behind the Jensen-Shannon distance; chosen by hand."""
Numbers = Sequence[float] | NDArray[np.float64]


def log_truth_ratio(reworded: float, perturbed: Sequence[float]) -> float:
    """Compute log r of one question.

    Args:
        reworded: loss of the reworded right answer.
        perturbed: losses of the wrong answers.

    Raises:
        DataError: there is no wrong answer, or a loss is not finite.
    """
    _need_finite([reworded, *perturbed], "losses")
    if not perturbed:
        raise DataError("a truth ratio needs wrong answers too", expected="at least one perturbed answer", got="none")
    return fmean(perturbed) - reworded


def released_log_truth_ratios(reworded: Sequence[float], perturbed: Sequence[Sequence[float]]) -> list[float]:
    """Compute log r of each question as CLEAR's released script does: with one mean over the wrong answers of **all** questions.

    Args:
        reworded: loss of each question's reworded right answer.
        perturbed: losses of each question's wrong answers.

    Raises:
        DataError: there are no wrong answers, or a loss is not finite.
    """
    every = [loss for losses in perturbed for loss in losses]
    _need_finite([*reworded, *every], "losses")
    if not every:
        raise DataError("a truth ratio needs wrong answers too", expected="at least one perturbed answer", got="none")
    return [fmean(every) - loss for loss in reworded]


def forget_truth(log_ratio: float) -> float:
    """Compute min(r, 1/r), in [0, 1], from log r: 1 for a model that finds truth and error equally likely.

    Raises:
        DataError: the ratio is not finite.
    """
    _need_finite([log_ratio], "truth ratio")
    return math.exp(-abs(log_ratio))


def retain_truth(log_ratio: float) -> float:
    """Compute max(0, 1 - 1/r), in [0, 1], from log r: near 1 for a model that knows the truth.

    Raises:
        DataError: the ratio is not finite.
    """
    _need_finite([log_ratio], "truth ratio")
    return max(0.0, -math.expm1(-log_ratio)) if log_ratio > 0 else 0.0


def option_probability(right: float, wrong: Sequence[float]) -> float:
    """Compute the probability of the right answer among options: exp(-l) / (exp(-l) + sum of exp(-l_i)).

    Args:
        right: loss of the right answer.
        wrong: losses of the wrong answers.

    Returns:
        The probability, in [0, 1]; each option's is a geometric mean over its tokens.

    Raises:
        DataError: a loss is not finite.
    """
    _need_finite([right, *wrong], "losses")
    return 1 / (1 + sum(math.exp(min(700.0, right - loss)) for loss in wrong))


def harmonic_mean(values: Sequence[float]) -> float:
    """Compute n / sum(1 / x), the model utility of TOFU, CLEAR and FIUBench; 0 when any value is 0.

    Raises:
        DataError: there are no values, or one is negative or not finite.
    """
    _need_finite(values, "values")
    if not values or min(values) < 0:
        raise DataError(
            "a harmonic mean needs values that are not negative", expected="at least one number >= 0", got=f"{len(values)} values"
        )
    return 0.0 if min(values) == 0 else len(values) / sum(1 / value for value in values)


def js_distance(a: Numbers, b: Numbers, bins: int = BINS) -> float:
    """Compute the Jensen-Shannon distance of two samples, with histograms of equal bins and logarithms to base 2.

    For small samples it grows with the number of bins, also for samples of the same distribution.

    Args:
        a: numbers in [0, 1].
        b: numbers in [0, 1].
        bins: number of bins.

    Returns:
        The distance, in [0, 1].

    Raises:
        DataError: a sample is empty, or a number is not in [0, 1].
    """
    p, q = (_histogram(sample, bins) for sample in (a, b))
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


class Nearness(NamedTuple):
    """How near a model's truth ratios are to those of a reference that never saw the forget set.

    Attributes:
        p_value: TOFU's forget quality, the p-value of a Kolmogorov-Smirnov test; a high one means that the models cannot be distinguished.
        ks: the test's statistic, in [0, 1]; 0 for equal distributions.
        ks_interval: 95 % bootstrap interval of `ks` over people.
        js: Jensen-Shannon distance of r / (1 + r), in [0, 1]; 0 for equal distributions.
        js_interval: 95 % bootstrap interval of `js` over people.
    """

    p_value: float
    ks: float
    ks_interval: Interval
    js: float
    js_interval: Interval


def nearness(model: Sequence[float], reference: Sequence[float] | None, people: Sequence[str], *, seed: int, draws: int = 500) -> Nearness:
    """Compare the log truth ratios of two models on the same questions.

    Args:
        model: log r of the model for each question.
        reference: log r of the reference for the same questions, in the same order.
        people: the person that each question is about.
        seed: random seed of the bootstrap.
        draws: number of draws.

    Returns:
        p-value and distances, with intervals.

    Raises:
        DataError: there is no reference, the samples differ in length, or a number is not finite.
    """
    if reference is None:
        raise DataError(
            "forget quality needs a model that never saw the forget set",
            expected="its truth ratios on the same questions",
            got="none",
            fix="give --reference, a model trained on the retain set only",
        )
    if len(model) != len(reference):
        raise DataError("the two models were asked different questions", expected=f"{len(model)} truth ratios", got=str(len(reference)))
    result = ks_two_sample(model, reference)
    x, y = np.asarray(model, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    u, w = _squashed(x), _squashed(y)
    ks, js = np.empty(draws), np.empty(draws)
    for draw, places in enumerate(bootstrap_samples(people, draws=draws, seed=seed)):
        ks[draw], js[draw] = _ks_statistic(x[places], y[places]), js_distance(u[places], w[places])
    return Nearness(result.p_value, result.statistic, percentiles(ks), js_distance(u, w), percentiles(js))


def _ks_statistic(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest distance of the two empirical distributions."""
    points = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def _squashed(log_ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """r / (1 + r): 1/2 for a model that does not know the truth, near 1 for one that does."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_ratios, -700, 700))))


def _histogram(sample: Numbers, bins: int) -> NDArray[np.float64]:
    x = np.asarray(sample, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
        raise DataError("a distribution needs numbers in [0, 1]", expected="at least one, none of them NaN", got=f"{x.size} numbers")
    return np.histogram(x, bins=bins, range=(0.0, 1.0))[0] / x.size


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    inside = p > 0
    return float((p[inside] * np.log2(p[inside] / q[inside])).sum())


def _need_finite(values: Sequence[float], what: str) -> None:
    if not all(map(math.isfinite, values)):
        raise DataError(f"the {what} must be finite", expected="finite numbers", got=f"NaN or infinity among {len(values)}")
