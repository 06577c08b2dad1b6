"""Curves of a training run, by name: parts of the loss, `recall …` and `drift …` of some rows, each as points (step, value)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TypeVar

T = TypeVar("T")
Curves = dict[str, list[tuple[int, float]]]
RECALL = "recall "
"""Start of the names of curves of recall: the share of some rows whose recorded answer the model would give word for word."""
DRIFT = "drift "
"""Start of the names of curves of drift: how far the log-likelihood of an answer token of some rows is from the base's, in nats."""
BLOCKS = "▁▂▃▄▅▆▇█"
"""Characters of a sparkline, lowest first."""
PLAIN = str.maketrans(BLOCKS, "_.,-~=+#")
"""The same for terminals that know ASCII alone."""


def losses(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """The curves that are parts of the loss."""
    return {name: list(curve) for name, curve in curves.items() if not name.startswith((RECALL, DRIFT))}


def measured(curves: Mapping[str, Sequence[tuple[float, float]]], kind: str) -> dict[str, list[tuple[float, float]]]:
    """The curves of recall or of drift, by the name of the rows.

    Args:
        curves: all curves of a run.
        kind: `RECALL` or `DRIFT`.
    """
    return {name.removeprefix(kind): list(curve) for name, curve in curves.items() if name.startswith(kind)}


def thinned(curves: Mapping[str, Sequence[tuple[float, float]]], most: int) -> dict[str, list[list[float]]]:
    """Curves with a limited number of points: each stands for neighbours, with their mean value and their last step.

    Args:
        curves: all curves of a run.
        most: largest number of points of a curve.

    Returns:
        Curves as JSON values.
    """
    return {name: [[part[-1][0], fmean(value for _, value in part)] for part in _parts(curve, most)] for name, curve in curves.items()}


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Draw values as a line of block characters, from their least to their largest value; empty without values."""
    means = [fmean(part) for part in _parts(values, width)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1)) if high > low else 0] for mean in means)


def trace(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Say how training goes, in one line: each part of the loss as a sparkline with its last value, then recall and drift.

    Args:
        curves: all curves of a run so far.

    Returns:
        The line; empty before the first step.
    """
    said = [f"{name} {sparkline([value for _, value in line])} {line[-1][1]:.3g}" for name, line in losses(curves).items()]
    said += [f"{RECALL}{name} {line[-1][1]:.0%}" for name, line in measured(curves, RECALL).items()]
    said += [f"{DRIFT}{name} {line[-1][1]:.2g}" for name, line in measured(curves, DRIFT).items()]
    return ", ".join(said)


def _parts(values: Sequence[T], most: int) -> Iterable[Sequence[T]]:
    """Cut values into at most `most` stretches of nearly the same length."""
    count = min(most, len(values))
    for start, end in pairwise(round(n * len(values) / max(count, 1)) for n in range(count + 1)):
        yield values[start:end]
