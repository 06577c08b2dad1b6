"""The composite score: how much is forgotten and how much is left, each at its worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vgid.errors import DataError
from vgid.evaluation.truth import harmonic_mean

FORGETTING = ("forget", "forget_views", "forget_reworded", "forget_text")
"""Splits that ask for what is to be forgotten."""
UTILITY = ("retain", "retain_views", "retain_reworded", "retain_text", "perception", "forget_perception")
"""Splits that ask for what must stay."""
Shares = Mapping[str, float]
"""Accuracy by split, in [0, 1]."""


class Score(NamedTuple):
    """One model's score with its components.

    Attributes:
        composite: harmonic mean of `forgetting` and `utility`.
        forgetting: the worst of `forgetting_by`.
        utility: the worst of `utility_by`.
        forgetting_by: by split, 1 - max(0, accuracy - the retrained model's).
        utility_by: by split, accuracy over the base's, capped at 1.
    """

    composite: float
    forgetting: float
    utility: float
    forgetting_by: Shares
    utility_by: Shares


def score(model: Shares, base: Shares, retrained: Shares) -> Score:
    """Score a model by its accuracies, the base's and the retrained model's, over the splits that were measured.

    Raises:
        DataError: no split asks for what is to be forgotten, or none for what must stay.
    """
    forgotten = {split: forgetting(model[split], retrained[split]) for split in FORGETTING if split in model}
    kept = {split: relative(model[split], base[split]) for split in UTILITY if split in model}
    if not forgotten or not kept:
        raise DataError("a score needs both sides", expected="a split of either kind", got=", ".join(model) or "none")
    worst = min(forgotten.values()), min(kept.values())
    return Score(harmonic_mean(worst), *worst, forgotten, kept)


def forgetting(accuracy: float, retrained: float) -> float:
    """1 - max(0, accuracy - retrained): what a model that never saw the data answers by guessing counts as forgotten."""
    return 1.0 - max(0.0, accuracy - retrained)


def relative(accuracy: float, base: float) -> float:
    """min(1, accuracy / base); where the base answers nothing there is nothing to lose, which counts as 1."""
    return min(1.0, accuracy / base) if base else 1.0


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names that no other point beats in one number without losing in the other; more is better, from left to right."""

    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points.values())

    return sorted((name for name, point in points.items() if not beaten(point)), key=lambda name: points[name])
