"""The composite score: how much is forgotten and how much is retained, each on the split where it is worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vgid.errors import DataError
from vgid.evaluation.truth import harmonic_mean

FORGETTING = ("forget", "forget_views", "forget_reworded", "forget_text")
"""Splits that ask for what must be forgotten."""
UTILITY = ("retain", "retain_views", "retain_reworded", "retain_text", "perception", "forget_perception")
"""Splits that ask for what must be retained."""
Shares = Mapping[str, float]
"""Accuracy by split, in [0, 1]."""


class Score(NamedTuple):
    """A model's score with its components, all in [0, 1].

    Attributes:
        composite: harmonic mean of `forgetting` and `utility`.
        forgetting: the smallest value of `forgetting_by`.
        utility: the smallest value of `utility_by`.
        forgetting_by: by split, 1 - max(0, accuracy - the reference's accuracy).
        utility_by: by split, accuracy over the base's accuracy, at most 1.
    """

    composite: float
    forgetting: float
    utility: float
    forgetting_by: Shares
    utility_by: Shares


def score(model: Shares, base: Shares, reference: Shares) -> Score:
    """Score a model over the splits of `FORGETTING` and `UTILITY` that were measured.

    Args:
        model: accuracies of the model, by split.
        base: accuracies before unlearning.
        reference: accuracies of a model that was trained without the forget set.

    Returns:
        The composite and its components.

    Raises:
        DataError: no split asks for what must be forgotten, or none for what must be retained.
    """
    forgotten = {split: forgetting(model[split], reference[split]) for split in FORGETTING if split in model}
    kept = {split: kept_share(model[split], base[split]) for split in UTILITY if split in model}
    if not forgotten or not kept:
        raise DataError("a score needs forget and retain splits", expected="a split of either kind", got=", ".join(model) or "none")
    worst = min(forgotten.values()), min(kept.values())
    return Score(harmonic_mean(worst), *worst, forgotten, kept)


def forgetting(accuracy: float, reference: float) -> float:
    """Return 1 - max(0, accuracy - reference); what the reference answers right it has guessed, for it never saw the data."""
    return 1.0 - max(0.0, accuracy - reference)


def kept_share(accuracy: float, base: float) -> float:
    """Return min(1, accuracy / base); where the base answers nothing right there is nothing to lose, which counts as 1."""
    return min(1.0, accuracy / base) if base else 1.0


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names on the Pareto front: no other point is as good in both numbers and better in one.

    Args:
        points: (forgetting, utility) by name; more is better.

    Returns:
        The names, by growing forgetting.
    """

    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points.values())

    return sorted((name for name, point in points.items() if not beaten(point)), key=lambda name: points[name])
