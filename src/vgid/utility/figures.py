"""Figures of general utility, and the share of them that is left after unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from vgid.errors import DataError
from vgid.evaluation.statistics import Interval, bootstrap_ci, bootstrap_means, percentiles


class SuiteFigure(NamedTuple):
    """A number of a suite.

    Attributes:
        task: the task, such as a topic of the built-in suite.
        metric: the metric, such as `accuracy`; `relative` for a share of the base's value.
        value: its value, in the unit of the metric.
        interval: its 95 % interval; None where the suite gives none.
        n: number of questions; None where the suite gives none.
    """

    task: str
    metric: str
    value: float
    interval: Interval | None
    n: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the figure for `results.json`."""
        return self._asdict() | {"interval": list(self.interval) if self.interval else None}


def accuracy_figure(task: str, right: Sequence[float], people: Sequence[str], seed: int) -> SuiteFigure:
    """Return an accuracy with its bootstrap interval over people.

    Args:
        task: name of the task.
        right: for each question, 1 if the answer is right, else 0.
        people: the person whom each question is about.
        seed: random seed of the interval.
    """
    return SuiteFigure(task, "accuracy", fmean(right), bootstrap_ci(right, people, seed=seed), len(right))


def relative_figure(task: str, after: Sequence[float], before: Sequence[float], people: Sequence[str], seed: int) -> SuiteFigure | None:
    """Return the accuracy after unlearning over that before it, on the same questions.

    The interval draws people, the same ones for both models; draws without a right answer before unlearning are left out.

    Args:
        task: name of the task.
        after: for each question, 1 if the unlearned model's answer is right, else 0.
        before: the same of the base.
        people: the person whom each question is about.
        seed: random seed of the interval.

    Returns:
        The figure; None where the base answered nothing right.

    Raises:
        DataError: the two have different numbers of questions.
    """
    if len(after) != len(before):
        raise DataError("the two models were asked different questions", expected=str(len(before)), got=str(len(after)))
    if not any(before):
        return None
    means = [bootstrap_means(values, people, seed=seed) for values in (after, before)]
    ratios = means[0][means[1] > 0] / means[1][means[1] > 0]
    return SuiteFigure(task, "relative", fmean(after) / fmean(before), percentiles(np.asarray(ratios)), len(after))


def relative_figures(made: Mapping[str, Sequence[SuiteFigure]]) -> list[SuiteFigure]:
    """Return the unlearned model's figures over the base's, for suites that give no single answers, and so no intervals.

    Args:
        made: figures by model.

    Returns:
        A figure for each that is positive before unlearning; none unless there are both `base` and `unlearned`.
    """
    if not {"base", "unlearned"} <= set(made):
        return []
    before = {(figure.task, figure.metric): figure.value for figure in made["base"]}
    found = [(figure, before.get((figure.task, figure.metric), 0.0)) for figure in made["unlearned"]]
    return [SuiteFigure(f"{f.task}/{f.metric}", "relative", f.value / value, None, f.n) for f, value in found if value > 0]
