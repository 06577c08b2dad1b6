r"""Truth ratio: the recorded answer against the same answer with other people's values (cf. TOFU, arXiv 2401.06121).

.. math:: \frac{p}{p + q}

with p the probability of the recorded answer and q the mean one of the wrong answers, each a geometric mean over tokens. This form of
OpenUnlearning (arXiv 2506.12618) is higher for a model that knows the truth; 1/2 means that truth and error are equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import ClassVar

from vgid.attacks.scores import alternatives, grouped, mean_loss
from vgid.metrics.base import METRICS, Metric, Reading

WRONG = 5
"""Largest number of wrong answers to a question; TOFU has five."""


@METRICS.register("truth_ratio")
class TruthRatio(Metric):
    """Probability of the recorded answer as a share of its own and that of answers with other people's values."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "probabilities"
    unit = "0 to 1, 1/2 where truth and error are equally likely"
    paper = "2401.06121, 2506.12618"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """The ratio for each row that other people's values exist for."""
        material = reading.material
        groups = {row.id: [row, *alternatives(row, material.peers(row), WRONG, material.seed)] for row in material.forget}
        groups = {id: group for id, group in groups.items() if len(group) > 1}
        scored = grouped(reading.loaded, list(groups.values()), material.batch_size)
        return {id: truth_share(*(mean_loss(each) for each in group)) for id, group in zip(groups, scored, strict=True)}


def truth_share(right: float, *wrong: float) -> float:
    """Compute p / (p + q) from losses.

    Args:
        right: mean loss of the recorded answer's tokens, in nats.
        wrong: mean losses of wrong answers, in nats; at least one.

    Returns:
        The share, in [0, 1].
    """
    p, q = math.exp(-right), fmean(math.exp(-loss) for loss in wrong)
    return p / (p + q) if p + q else 0.5
