"""The report of a fine-tuning: what the model has learned, and how training went. It holds figures, no questions or answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgid.report import view
from vgid.report.rendering import check_schema, render_template
from vgid.report.training import training_figures
from vgid.report.words import accuracy, flatten, models_of, percent

SCHEMA = "vgid.results/1"


def render_finetuning(results: Mapping[str, Any]) -> str:
    """Render the page; everything in it is escaped.

    Args:
        results: what `vgid.finetune` returns as `results`.

    Returns:
        The page as HTML.

    Raises:
        DataError: the results are not of schema `vgid.results/1`.
    """
    check_schema(results, SCHEMA)
    splits = results["splits"]
    return render_template(
        "finetuning.html.j2",
        results=results,
        headline=_headline(splits, results["rows_trained"]),
        models=models_of(splits),
        rows=[row for _, rows in view.groups(splits, models_of(splits)) for row in rows],
        training=training_figures(results["curves"]),
        settings=list(flatten(results["config"])),
    )


def _headline(splits: Mapping[str, Any], rows: Mapping[str, int]) -> str:
    after, before = (accuracy(splits, "learned", model) for model in ("finetuned", "base"))
    if after is None or before is None:
        return f"The model was trained on {rows['learned']} rows; what it knows was not asked."
    text = f"The model answers {percent(after)} of the questions it was trained on ({percent(before)} before)"
    control = accuracy(splits, "left_out", "finetuned")
    return f"{text}." if control is None else f"{text}, and {percent(control)} of those that were left out."
