"""The report of a fine-tuning: what the model has learned, and loss and recall over steps. It holds figures, no questions or answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vgid.report import plots, view
from vgid.report.rendering import check_schema, render_template
from vgid.report.words import accuracy, flatten, models_of, percent

SCHEMA = "vgid.results/1"
RECALL = "recall "
"""What the names of curves of recall start with; other curves are parts of the loss."""


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
    curves = results["curves"]
    losses = {name: line for name, line in curves.items() if not name.startswith(RECALL)}
    recalled = {name.removeprefix(RECALL): line for name, line in curves.items() if name.startswith(RECALL)}
    splits = results["splits"]
    return render_template(
        "finetuning.html.j2",
        results=results,
        headline=_headline(splits, results["rows_trained"]),
        models=models_of(splits),
        rows=[row for _, rows in view.groups(splits, models_of(splits)) for row in rows],
        losses=Markup(plots.curves(losses)) if losses else None,
        recall=Markup(plots.recall_curves(recalled)) if recalled else None,
        recalled=list(recalled),
        curve_series=plots.curve_series,
        settings=list(flatten(results["config"])),
    )


def _headline(splits: Mapping[str, Any], rows: Mapping[str, int]) -> str:
    after, before = (accuracy(splits, "learned", model) for model in ("finetuned", "base"))
    if after is None or before is None:
        return f"The model was trained on {rows['learned']} rows; what it knows was not asked."
    text = f"The model answers {percent(after)} of the questions it was trained on ({percent(before)} before)"
    control = accuracy(splits, "left_out", "finetuned")
    return f"{text}." if control is None else f"{text}, and {percent(control)} of those that were left out."
