"""Key-fact accuracy: whether the answer holds the fact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.evaluation.metrics import key_fact
from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("key_fact")
class KeyFact(Metric):
    """Share of answers that hold all keywords of the row, or else its whole answer."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "answers"
    unit = "share, 0 to 1"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """1 or 0 for each row."""
        return {row.id: float(key_fact(reading.answers[row.id], row.keywords, row.answer)) for row in reading.material.forget}
