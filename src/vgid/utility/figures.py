"""Figures of general utility, and what is left of them after unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from vgid.errors import DataError
from vgid.evaluation.statistics import Interval, bootstrap_ci, bootstrap_means, percentiles


class Figure(NamedTuple):
    """A number of a suite; `interval` is at 95 %, None where the suite gives none."""

    task: str
    metric: str
    value: float
    interval: Interval | None
    n: int | None

    def as_json(self) -> dict[str, Any]:
        """For `results.json`."""
        return self._asdict() | {"interval": list(self.interval) if self.interval else None}


def over_people(task: str, right: Sequence[float], people: Sequence[str], seed: int) -> Figure:
    """A mean with its bootstrap interval over people."""
    return Figure(task, "accuracy", fmean(right), bootstrap_ci(right, people, seed=seed), len(right))


def left_over(task: str, after: Sequence[float], before: Sequence[float], people: Sequence[str], seed: int) -> Figure | None:
    """The mean after unlearning over that before it, on the same questions; None where there was nothing before.

    The interval draws people, the same ones for both; draws in which nothing was right before say nothing and are left out.

    Raises:
        DataError: the two are not about equally many questions.
    """
    if len(after) != len(before):
        raise DataError("the two models were asked different questions", expected=str(len(before)), got=str(len(after)))
    if not any(before):
        return None
    means = [bootstrap_means(values, people, seed=seed) for values in (after, before)]
    ratios = means[0][means[1] > 0] / means[1][means[1] > 0]
    return Figure(task, "relative", fmean(after) / fmean(before), percentiles(np.asarray(ratios)), len(after))


def relative(made: Mapping[str, Sequence[Figure]]) -> list[Figure]:
    """Ratios of two models' figures without single answers to draw from, so without intervals; empty without both models."""
    if not {"base", "unlearned"} <= set(made):
        return []
    before = {(figure.task, figure.metric): figure.value for figure in made["base"]}
    found = [(figure, before.get((figure.task, figure.metric), 0.0)) for figure in made["unlearned"]]
    return [Figure(f"{f.task}/{f.metric}", "relative", f.value / value, None, f.n) for f, value in found if value > 0]
