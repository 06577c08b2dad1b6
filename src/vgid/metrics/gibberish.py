"""Gibberish share: answers that are not language, by a rule that anyone can check.

OpenUnlearning (arXiv 2506.12618) asks a classifier; this rule needs none, and knows no vocabulary, so it sees repetition and noise, and not
fluent nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from vgid.metrics.base import METRICS, Metric, Reading

LONGEST = 40
"""Letters of a word above which it is none: more than German compounds have. Chosen by hand."""
REPEATED = re.compile(r"(?=[^\d\W])(.{1,40}?)\1{3,}", re.DOTALL)
"""Anything that begins with a letter and stands four times in a row."""
_LONG = re.compile(rf"[A-Za-zÀ-ɏͰ-ӿ]{{{LONGEST + 1},}}")


@METRICS.register("gibberish")
class Gibberish(Metric):
    """Share of answers that are empty, repeat themselves, or are mostly signs: what is left where a model has collapsed."""

    measures: ClassVar = "text"
    reads: ClassVar = "answers"
    unit = "share, 0 to 1"
    paper = "cf. 2506.12618"

    def run(self, reading: Reading) -> Mapping[str, float]:
        """1 or 0 for each row."""
        return {id: float(is_gibberish(text)) for id, text in reading.answers.items()}


def is_gibberish(text: str) -> bool:
    """Whether a text has no letter or digit, repeats a part four times in a row, has a word of more than `LONGEST` letters, or is half
    signs."""
    marks = [each for each in text if not each.isspace()]
    spoken = sum(each.isalnum() for each in marks)
    return not spoken or 2 * spoken < len(marks) or bool(REPEATED.search(f"{text} ")) or bool(_LONG.search(text))
