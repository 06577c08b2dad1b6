"""Probability of the recorded answer (TOFU, arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.attacks.scores import mean_loss
from vgid.evaluation.metrics import probability
from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("probability")
class Probability(Metric):
    """Probability of the recorded answer, a geometric mean over its tokens."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "probabilities"
    unit = "0 to 1"
    paper = "2401.06121"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """exp(-mean loss) for each row."""
        return {row.id: probability(mean_loss(reading.tokens[row.id])) for row in reading.material.forget}
