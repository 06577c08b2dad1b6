"""BLEU between the model's answer and the recorded one (Papineni et al., 2002)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.evaluation.overlap import bleu
from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("bleu")
class Bleu(Metric):
    """Sentence BLEU-4 of the answer with the recorded one."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "answers"
    unit = "0 to 1"
    paper = "Papineni et al. 2002"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """BLEU in [0, 1] for each row."""
        return {row.id: bleu(reading.answers[row.id], row.answer) for row in reading.material.forget}
