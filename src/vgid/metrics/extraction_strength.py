"""Extraction strength: how short a beginning of the answer suffices for the model to say the rest (arXiv 2406.09179, 2506.12618).

With T tokens of the recorded answer, and k the smallest number of its first tokens after which every further one is the likeliest, given
all before it, the strength is 1 - k / T: 1 where nothing needs to be given, and 0 where even the last token is not the likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from vgid.metrics.base import METRICS, Metric, Reading


@METRICS.register("extraction_strength")
class ExtractionStrength(Metric):
    """Share of the recorded answer that the model goes on with by itself, once it is given the beginning."""

    measures: ClassVar = "knowledge"
    reads: ClassVar = "probabilities"
    unit = "share of the answer's tokens, 0 to 1"
    paper = "2406.09179, 2506.12618"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """The strength for each row."""
        return {row.id: extracted(reading.tokens[row.id].likeliest) for row in reading.material.forget}


def extracted(likeliest: Tensor) -> float:
    """The share of tokens at the end that are all the likeliest ones.

    Args:
        likeliest: bool `[t]`, whether each token of the recorded answer is the likeliest one.
    """
    wrong = (~likeliest).nonzero()
    given = int(wrong[-1]) + 1 if len(wrong) else 0
    return 1 - given / len(likeliest)
