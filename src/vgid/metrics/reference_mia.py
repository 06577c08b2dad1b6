"""Membership inference with a reference model: is a row likelier than a model that never saw it would find it (arXiv 2012.07805)?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.attacks.scores import mean_loss
from vgid.data.example import Example
from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("reference_mia")
class ReferenceMia(Metric):
    """AUC of forget rows against unseen ones, by the reference's loss minus the model's."""

    measures: ClassVar = "membership"
    reads: ClassVar = "probabilities"
    unit = "AUC, 1/2 where rows cannot be distinguished"
    needs = ("unseen", "reference")
    paper = "2012.07805, 2506.12618"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """Each row's share of unseen rows with a smaller difference; the mean over rows is the AUC."""

        def gained(model: Reading, row: Example) -> float:
            assert reading.reference is not None
            return mean_loss(reading.reference.tokens[row.id]) - mean_loss(model.tokens[row.id])

        return reading.above_unseen(gained)
