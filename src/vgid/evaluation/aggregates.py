"""Aggregate scores: those of Open-MMUnlearning (arXiv 2610.10358), and `composite`, which is vgid's own.

The paper's own table shows why a single one of its scores says little: the model that has memorised everything has a forget quality of
0.687 and the one that never saw the data 0.696, and gradient ascent has a robustness of 0.881 with a utility of 0.066. So `composite`
measures between two reference points, the base and a model that never saw the forget set, and first says whether these differ at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from vgid.errors import DataError
from vgid.evaluation.truth import harmonic_mean

LEAST_KNOWN = 0.1
"""Difference of scores on the forget set, base minus reference, from which on there is something to forget; chosen by hand."""


def forget_quality(task: float, truth_ratio: float, probability: float, ks: float, js: float) -> float:
    """Compute the forget quality FQ: mean of task, truth ratio, 1 - probability, 1 - KS and 1 - JS (equation 53).

    Args:
        task: `forget_task`, in [0, 1].
        truth_ratio: truth ratio on the forget set, in [0, 1] (`vgid.evaluation.truth.forget_truth`).
        probability: probability of the recorded answers, in [0, 1].
        ks: Kolmogorov-Smirnov statistic of truth ratios against the reference, in [0, 1].
        js: Jensen-Shannon distance of truth ratios from the reference's, in [0, 1].

    Returns:
        A score in [0, 1]; higher is better.

    Raises:
        DataError: a number is not in [0, 1].
    """
    return fmean(_shares("forget quality", [task, truth_ratio, 1 - probability, 1 - ks, 1 - js]))


def forget_task(cloze: Sequence[float], classification: Sequence[float], rouge_l: Sequence[float]) -> float:
    """Compute the task part of the forget quality: mean of 1 - cloze, 1 - classification and 1 - ROUGE-L (equations 51 and 52).

    Args:
        cloze: cloze accuracy on each set, in [0, 1]; the paper uses the forget and the test set, asked with pictures.
        classification: accuracy among options on each set, in [0, 1].
        rouge_l: ROUGE-L on each set, in [0, 1].

    Returns:
        A score in [0, 1]; higher is better.

    Raises:
        DataError: a list is empty, or a number is not in [0, 1].
    """
    return 1 - fmean(fmean(_shares("forget task", values)) for values in (cloze, classification, rouge_l))


def model_utility(retain: Sequence[float], general: Sequence[float]) -> float:
    """Compute the model utility MU, half from retained data and half from general benchmarks (equation 56).

    Args:
        retain: scores on retained data (with and without pictures, shared and celebrity), in [0, 1].
        general: scores on general VQA sets, in [0, 1].

    Returns:
        A score in [0, 1]; higher is better.

    Raises:
        DataError: a list is empty, or a number is not in [0, 1].
    """
    return (fmean(_shares("utility on retained data", retain)) + fmean(_shares("general utility", general))) / 2


def output_robustness(auc: float) -> float:
    """Compute the robustness of outputs, 1 - 2 |AUC - 1/2|: 1 where membership inference is no better than chance.

    Args:
        auc: area under the curve of a membership attack, in [0, 1].

    Raises:
        DataError: the AUC is not in [0, 1].
    """
    _shares("robustness of outputs", [auc])
    return min(1.0, max(0.0, 1 - 2 * abs(auc - 0.5)))


def robustness(model: float, inputs: float, output: float) -> float:
    """Average the robustness to three kinds of attacks.

    Args:
        model: robustness to attacks on the model, in [0, 1].
        inputs: robustness to attacks on its inputs, in [0, 1].
        output: `output_robustness`, in [0, 1].

    Returns:
        A score in [0, 1]; higher is better.

    Raises:
        DataError: a number is not in [0, 1].
    """
    return fmean(_shares("robustness", [model, inputs, output]))


def overall(forget: float, utility: float, robust: float) -> float:
    """Compute the paper's overall score: the mean of forget quality, model utility and robustness (equation 63).

    Args:
        forget: `forget_quality`, in [0, 1].
        utility: `model_utility`, in [0, 1].
        robust: `robustness`, in [0, 1].

    Returns:
        A score in [0, 1]; higher is better.

    Raises:
        DataError: a number is not in [0, 1].
    """
    return fmean(_shares("overall", [forget, utility, robust]))


class Composite(NamedTuple):
    """The composite score, with the numbers it depends on.

    Attributes:
        known: whether the base knew at least `LEAST_KNOWN` more than the reference, so that forgetting means something.
        before: score of the base on the forget set.
        reference: score on it of a model that never saw it.
        removed: share of the difference between these two that unlearning removed, clipped to [0, 1]; None where nothing was known.
        kept: share of utility that is left, at most 1.
        score: harmonic mean of `removed` and `kept`; None where nothing was known.
    """

    known: bool
    before: float
    reference: float
    removed: float | None
    kept: float
    score: float | None


def composite(*, before: float, after: float, reference: float, utility_before: float, utility_after: float) -> Composite:
    """Compute the composite score: forgetting between base and reference, and utility beside the base's.

    Args:
        before: score on the forget set before unlearning, in [0, 1]; higher means that the model knows more.
        after: score on the forget set after unlearning.
        reference: score on the forget set of a model that was trained without it.
        utility_before: utility on retained data before unlearning, in (0, 1].
        utility_after: utility on retained data after unlearning.

    Returns:
        The score and its parts.

    Raises:
        DataError: a number is not in [0, 1], or there was no utility before.
    """
    _shares("composite", [before, after, reference, utility_before, utility_after])
    if utility_before == 0:
        raise DataError("the model had no utility before unlearning", expected="a model that can answer retained questions", got="0")
    kept = min(1.0, utility_after / utility_before)
    if before - reference < LEAST_KNOWN:
        return Composite(False, before, reference, None, kept, None)
    removed = min(1.0, max(0.0, (before - after) / (before - reference)))
    return Composite(True, before, reference, removed, kept, harmonic_mean([removed, kept]))


def _shares(what: str, values: Sequence[float]) -> Sequence[float]:
    if not values or not all(math.isfinite(value) and -1e-9 <= value <= 1 + 1e-9 for value in values):
        raise DataError(f"{what} needs numbers in [0, 1]", expected="at least one, none of them NaN", got=f"{len(values)} numbers")
    return values
