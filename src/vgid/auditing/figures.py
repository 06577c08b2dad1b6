"""From what came back under an attack to the share of it that counts: pure functions over numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError
from vgid.evaluation.statistics import GroupedValues, Interval, bootstrap_samples, combined_ci, percentiles

LEAST_ROOM = 0.2
"""Where a model that never saw the facts gives more than all but so much of them, an attack tells nothing."""
DRAWS = 400


class Share(NamedTuple):
    """A recovered share, at most 1, with its 95 % interval over people; below 0 where less came back than by guessing."""

    value: float
    interval: Interval


def recovered_share(
    attacked: Sequence[float], reference: Sequence[float] | None, chance: float, people: Sequence[str], *, seed: int
) -> Share | None:
    """(u - r) / (1 - r): u of the facts the base knew came back; r do for a model that never saw them, and at least by guessing.

    1 is the memorised model, 0 the retrained one. None where r leaves no room (`LEAST_ROOM`).

    Raises:
        DataError: no facts.
    """
    floor = max(chance, float(np.mean(reference))) if reference else chance
    if 1 - floor < LEAST_ROOM:
        return None
    parts = [GroupedValues(attacked, people, "forget")]
    if reference is not None:
        parts.append(GroupedValues(reference, people, "forget"))
    value, interval = combined_ci(parts, lambda means: _share(means[0], max(chance, *means[1:], 0.0)), seed=seed)
    return Share(value, interval)


def _share(attacked: float, floor: float) -> float:
    return max(-1.0, (attacked - floor) / max(1 - floor, 1e-9))


def auc(members: Sequence[float] | NDArray[np.float64], others: Sequence[float] | NDArray[np.float64]) -> float:
    """How often a member's score is above another's, ties counting half (Mann-Whitney).

    Raises:
        DataError: one of the sets is empty.
    """
    x, y = np.asarray(members, dtype=np.float64), np.sort(np.asarray(others, dtype=np.float64))
    if not len(x) or not len(y):
        raise DataError("an AUC needs scores on both sides", expected="at least one each", got=f"{len(x)} and {len(y)}")
    below, upto = np.searchsorted(y, x, side="left"), np.searchsorted(y, x, side="right")
    return float((below + upto).sum() / (2 * len(x) * len(y)))


def tpr_at(members: Sequence[float], others: Sequence[float], fpr: float = 0.01) -> float:
    """Part of the members above the threshold that at most `fpr` of the others pass."""
    y = np.sort(np.asarray(others, dtype=np.float64))[::-1]
    threshold = y[int(fpr * len(y))]
    return float(np.mean(np.asarray(members, dtype=np.float64) > threshold))


class Members(NamedTuple):
    """Scores of one model: of forget rows and of rows nobody learned."""

    forget: Sequence[float]
    unseen: Sequence[float]


def membership_share(
    attacked: Members, base: Members, reference: Members | None, people: tuple[Sequence[str], Sequence[str]], *, seed: int
) -> Share | None:
    """(A - R) / (B - R) of AUCs: A of the audited model, B of the base, R of the retrained one (1/2 without).

    None where the base cannot be told from the retrained model: B - R is below 0.1.
    """
    if auc(*base) - (auc(*reference) if reference else 0.5) < 0.1:
        return None
    models = [np.asarray(each, dtype=np.float64) for model in (attacked, base, *([reference] if reference else [])) for each in model]

    def share(forget: NDArray[np.intp], unseen: NDArray[np.intp]) -> float:
        areas = [auc(models[k][forget], models[k + 1][unseen]) for k in range(0, len(models), 2)]
        floor = areas[2] if reference else 0.5
        return float(np.clip((areas[0] - floor) / max(areas[1] - floor, 1e-9), -1, 1))

    everyone = [np.arange(len(each)) for each in people]
    drawn = [bootstrap_samples(each, draws=DRAWS, seed=[seed, k]) for k, each in enumerate(people)]
    draws = np.array([share(forget, unseen) for forget, unseen in zip(*drawn, strict=True)])
    return Share(share(*everyone), percentiles(draws))
