"""The examples that the demo's report shows beside its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vgid.data.example import Example
from vgid.evaluation.evaluate import SplitResult
from vgid.report.html import ReportExample

EXAMPLES_SHOWN = (("forget", 4), ("forget_views", 2), ("forget_text", 2), ("retain", 3), ("perception", 2), ("strangers", 2))
"""Splits, and the number of examples that reports show of each; these people do not exist, so their rows may be shown."""


def evenly_spaced(examples: Sequence[Example], count: int) -> list[Example]:
    """Return `count` examples at even distances in their list, so that they are about as many people and facts as possible."""
    step = len(examples) / count
    return [examples[int((k + 0.5) * step)] for k in range(count)]


def report_example(split: str, example: Example, evaluated: Mapping[str, Mapping[str, SplitResult]]) -> ReportExample:
    """Return one example with the answers of all models.

    Args:
        split: the split that the example is from.
        example: a question with its recorded answer.
        evaluated: results by model and split.

    Returns:
        The example as the report shows it.
    """
    answers = {
        model: next(item.prediction for item in results[split].items if item.example == example.id) for model, results in evaluated.items()
    }
    return ReportExample(
        portrait=example.images[0].read() if example.images else None,
        question=example.question,
        expected=example.answer,
        answers=answers,
        split=split,
    )
