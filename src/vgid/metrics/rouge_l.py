"""ROUGE-L between the model's answer and the recorded one (Lin, "ROUGE", 2004)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.evaluation.metrics import rouge_l
from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("rouge_l")
class RougeL(Metric):
    """ROUGE-L F1 of the answer with the recorded one."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "answers"
    unit = "0 to 1"
    paper = "Lin 2004"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """F1 in [0, 1] for each row."""
        return {row.id: rouge_l(reading.answers[row.id], row.answer) for row in reading.material.forget}
