"""From scores under an attack to the share that was recovered: pure functions over numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.errors import DataError
from vgid.evaluation.statistics import GroupedValues, Interval, bootstrap_samples, combined_ci, percentiles

LEAST_ROOM = 0.2
"""Least share of the facts, in [0, 1], that a model without them must leave unanswered under an attack for a recovered share to be given.

A convention, not calibrated: recovered shares divide by this room, so that one answer more or less counts five times at 0.2.
"""
LEAST_GAP = 0.1
"""Least difference of the AUCs of base and reference for a share of membership to be given; a convention, like `LEAST_ROOM`."""
DRAWS = 400
"""Bootstrap draws for the interval of a share of membership: fewer than for means, because every draw computes several AUCs."""


class Share(NamedTuple):
    """A recovered share with its 95 % interval over people.

    Attributes:
        value: at most 1; below 0 where less was recovered than by guessing.
        interval: bootstrap interval of the value.
    """

    value: float
    interval: Interval


def recovered_share(
    attacked: Sequence[float], reference: Sequence[float] | None, chance: float, people: Sequence[str], *, seed: int
) -> Share | None:
    r"""Compute the share of the known facts that an attack recovered, between a model without them (0) and the base (1).

    .. math:: \frac{u - r}{1 - r}

    with u the recovered share for the audited model, and r that for the reference, or for guessing where this is larger.

    Args:
        attacked: 0 or 1 for every fact that the base knew, from the audited model under the attack.
        reference: the same, from a model that was trained without the facts; None where there is none.
        chance: expected score of guessing, in [0, 1).
        people: the person that each fact is about; the bootstrap draws people.
        seed: seed of the bootstrap.

    Returns:
        The share and its interval; None where r leaves less room than `LEAST_ROOM`.

    Raises:
        DataError: there are no facts.
    """
    floor = max(chance, float(np.mean(reference))) if reference else chance
    if 1 - floor < LEAST_ROOM:
        return None
    parts = [GroupedValues(attacked, people, "forget")]
    if reference is not None:
        parts.append(GroupedValues(reference, people, "forget"))

    def share(means: Sequence[float]) -> float:
        least = max(chance, *means[1:], 0.0)
        return max(-1.0, (means[0] - least) / max(1 - least, 1e-9))

    return Share(*combined_ci(parts, share, seed=seed))


def auc(members: Sequence[float] | NDArray[np.float64], others: Sequence[float] | NDArray[np.float64]) -> float:
    """Compute the area under the ROC curve: how often a member's score is above another's, ties counting half (Mann-Whitney).

    Raises:
        DataError: one of the sets is empty.
    """
    x, y = np.asarray(members, dtype=np.float64), np.sort(np.asarray(others, dtype=np.float64))
    if not len(x) or not len(y):
        raise DataError("an AUC needs scores on both sides", expected="at least one each", got=f"{len(x)} and {len(y)}")
    below, upto = np.searchsorted(y, x, side="left"), np.searchsorted(y, x, side="right")
    return float((below + upto).sum() / (2 * len(x) * len(y)))


def tpr_at(members: Sequence[float], others: Sequence[float], fpr: float = 0.01) -> float:
    """Compute the true positive rate at a low false positive rate (Carlini et al., arXiv 2112.03570).

    Args:
        members: scores of rows that were learned.
        others: scores of rows that were not.
        fpr: largest share of the others above the threshold, in [0, 1).

    Returns:
        The share of the members above the lowest such threshold.
    """
    y = np.sort(np.asarray(others, dtype=np.float64))[::-1]
    threshold = y[int(fpr * len(y))]
    return float(np.mean(np.asarray(members, dtype=np.float64) > threshold))


class Members(NamedTuple):
    """Membership scores from one model.

    Attributes:
        forget: scores of forget rows.
        unseen: scores of rows that no model was trained on.
    """

    forget: Sequence[float]
    unseen: Sequence[float]


def membership_share(
    attacked: Members, base: Members, reference: Members | None, people: tuple[Sequence[str], Sequence[str]], *, seed: int
) -> Share | None:
    r"""Compute how much of the base's evidence of membership is left, between the reference (0) and the base (1).

    .. math:: \frac{A - R}{B - R}

    with the AUCs A of the audited model, B of the base and R of the reference, or 1/2 without a reference.

    Args:
        attacked: scores from the audited model.
        base: scores from the base.
        reference: scores from a model that was trained without the forget rows; None where there is none.
        people: the person that each forget row and each unseen row is about; the bootstrap draws people.
        seed: seed of the bootstrap.

    Returns:
        The share, within [-1, 1], and its interval; None where B - R is below `LEAST_GAP`: there was nothing to tell rows apart by.
    """
    if auc(*base) - (auc(*reference) if reference else 0.5) < LEAST_GAP:
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
