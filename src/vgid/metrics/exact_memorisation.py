"""Exact memorisation: how many of the recorded answer's tokens are the likeliest ones (arXiv 2205.10770, 2506.12618)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("exact_memorisation")
class ExactMemorisation(Metric):
    """Share of the recorded answer's tokens that are the likeliest, each given all before it."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "probabilities"
    unit = "share of the answer's tokens, 0 to 1"
    paper = "2205.10770, 2506.12618"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """The share for each row."""
        return {row.id: float(reading.tokens[row.id].likeliest.double().mean()) for row in reading.material.forget}
