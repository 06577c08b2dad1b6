"""Single numbers: those of Open-MMUnlearning (arXiv 2610.10358), and one of our own beside them.

That paper's own table shows why one of its numbers alone says little: the model that has memorised everything scores a forget quality of
0.687 and the one that never saw the data 0.696, and gradient ascent a robustness of 0.881 with a utility of 0.066. `composite` therefore
measures between two anchors, the model before unlearning and one that never saw the forget set, and says first whether they differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from vgid.errors import DataError
from vgid.evaluation.truth import harmonic_mean

LEAST_KNOWN = 0.1
"""The model before unlearning must know so much more of the forget set than one that never saw it."""


def forget_quality(task: float, truth_ratio: float, probability: float, ks: float, js: float) -> float:
    """FQ = mean of task, truth ratio, 1 - probability of the recorded answer, 1 - KS, 1 - JS (equation 53); `task` from `forget_task`.

    Raises:
        DataError: a number that is not in [0, 1].
    """
    return fmean(_shares("forget quality", [task, truth_ratio, 1 - probability, 1 - ks, 1 - js]))


def forget_task(cloze: Sequence[float], classification: Sequence[float], rouge_l: Sequence[float]) -> float:
    """Mean of 1 - cloze, 1 - classification and 1 - ROUGE-L, each a list of one number a set (equations 51 and 52).

    The paper takes the forget and the test set, asked with pictures.

    Raises:
        DataError: an empty list, or a number that is not in [0, 1].
    """
    return 1 - fmean(fmean(_shares("forget task", values)) for values in (cloze, classification, rouge_l))


def model_utility(retain: Sequence[float], general: Sequence[float]) -> float:
    """MU: half the mean over retained data (both ways of asking, shared and celebrity), half that of general VQA sets (equation 56).

    Raises:
        DataError: an empty list, or a number that is not in [0, 1].
    """
    return (fmean(_shares("utility on retained data", retain)) + fmean(_shares("general utility", general))) / 2


def output_robustness(auc: float) -> float:
    """1 - 2 |AUC - 1/2|, in [0, 1]: 1 where membership cannot be told.

    Raises:
        DataError: the AUC is not in [0, 1].
    """
    _shares("robustness of outputs", [auc])
    return min(1.0, max(0.0, 1 - 2 * abs(auc - 0.5)))


def robustness(model: float, inputs: float, output: float) -> float:
    """Mean of robustness to attacks on the model, on its inputs, and on its outputs.

    Raises:
        DataError: a number that is not in [0, 1].
    """
    return fmean(_shares("robustness", [model, inputs, output]))


def overall(forget: float, utility: float, robust: float) -> float:
    """The paper's single number: mean of forget quality, model utility and robustness (equation 63).

    Raises:
        DataError: a number that is not in [0, 1].
    """
    return fmean(_shares("overall", [forget, utility, robust]))


class Composite(NamedTuple):
    """Our single number, with what it hangs on.

    Attributes:
        known: whether the model before unlearning knew enough for forgetting to mean anything.
        before: its knowledge of the forget set.
        reference: that of a model that never saw it.
        removed: share of the difference that unlearning took away, cut to [0, 1].
        kept: share of utility that is left, cut to [0, 1].
        score: harmonic mean of `removed` and `kept`; None where nothing was known.
    """

    known: bool
    before: float
    reference: float
    removed: float | None
    kept: float
    score: float | None


def composite(*, before: float, after: float, reference: float, utility_before: float, utility_after: float) -> Composite:
    """Measure forgetting between what was known before and what a model knows that never saw the data.

    Args:
        before: knowledge of the forget set before unlearning, in [0, 1].
        after: the same after it.
        reference: the same of a model trained without the forget set.
        utility_before: utility on retained data before unlearning.
        utility_after: the same after it.

    Raises:
        DataError: a number that is not in [0, 1], or no utility before.
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
