"""The results of a benchmark (schema `vgid.benchmark/1`) as one page and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table
from vgid.report.training import TrainingFigure, training_figures
from vgid.report.words import figure_cell, flatten, model_name, percent

SCHEMA = "vgid.benchmark/1"
ARROWS = {"up": "\u2191", "down": "\u2193", "none": ""}
"""A sign for the direction in which a figure gets better."""
LEARNING = {"finetuned": "Fine-tuning of the model that knows", "reference": "Reference, without the forget set"}
"""Titles of the runs of `vgid bench --from-base` that come before unlearning."""
PRECONDITION = {
    True: "The model knew the forget set before unlearning, so that forgetting can be measured.",
    False: "The model hardly knew more of the forget set than one that never saw it: nothing can be said about forgetting.",
}
"""Whether the figures say anything about forgetting, by whether the base knew the forget set."""


class MetricRow(NamedTuple):
    """A metric of a task as it is shown.

    Attributes:
        task: the task.
        metric: name of the metric.
        arrow: direction in which it gets better.
        text: what it means.
        n: number of answers.
        cells: value and interval for each model; empty where it was not measured.
    """

    task: str
    metric: str
    arrow: str
    text: str
    n: int
    cells: tuple[tuple[str, str], ...]


class PublishedRow(NamedTuple):
    """A figure that others published, beside ours.

    Attributes:
        key: split, task and metric.
        ours: values of our models.
        theirs: published values.
    """

    key: str
    ours: list[str]
    theirs: list[str]


def metric_rows(results: Mapping[str, Any]) -> dict[str, list[MetricRow]]:
    """The rows of the table of figures, by split and in the order of the results."""
    figures: Mapping[str, Sequence[Mapping[str, Any]]] = results["figures"]
    named = {model: {(f["split"], f["task"], f["metric"]): f for f in each} for model, each in figures.items()}
    keys = list(dict.fromkeys(key for each in named.values() for key in each))
    rows: dict[str, list[MetricRow]] = {}
    for split, task, metric in keys:
        found = [each.get((split, task, metric)) for each in named.values()]
        first = next(f for f in found if f is not None)
        arrow, text = ARROWS[first["direction"]], results["metrics"][metric]
        rows.setdefault(split, []).append(MetricRow(task, metric, arrow, text, first["n"], tuple(figure_cell(f) for f in found)))
    return rows


def render_benchmark(results: Mapping[str, Any]) -> str:
    """Render the page of a benchmark; everything in it is escaped.

    Raises:
        DataError: the results are not of schema `vgid.benchmark/1`.
    """
    check_schema(results, SCHEMA)
    return render_template(
        "benchmark.html.j2",
        results=results,
        headline=headline(results),
        models=[(model, model_name(model)) for model in results["figures"]],
        splits=metric_rows(results),
        composite=results["composite"],
        published=[(each, published_rows(results, each)) for each in results["published"]],
        settings=list(flatten((results["unlearning"] or {}).get("config") or {})),
        training=list(_training(results)),
        precondition=PRECONDITION[results["composite"]["known"]] if results["composite"] else "",
    )


def headline(results: Mapping[str, Any]) -> str:
    """The verdict in a sentence: what is gone and what is kept, or why nothing can be said."""
    found, models = results["composite"], list(results["figures"])
    if found and found["known"]:
        return f"{percent(found['removed'])} of what could be removed is gone, and {percent(found['kept'])} of the utility is left"
    if found:
        return "Nothing can be said about forgetting: the model hardly knew the forget set before"
    model = "unlearned" if "unlearned" in models else models[-1]
    knows, useful = results["knowledge"][model], results["utility"][model]
    return f"{model_name(model)}: {knows:.3f} knowledge of the forget set, {useful:.3f} utility; alone they say nothing about forgetting"


def _training(results: Mapping[str, Any]) -> Iterator[tuple[str, list[TrainingFigure]]]:
    """How each run of training went: the one that unlearned, and before it those that made the models it starts from."""
    runs = {"Unlearning": results["unlearning"] or {}}
    learned = results.get("finetuning") or {}
    runs |= {title: learned[name] for name, title in LEARNING.items() if name in learned}
    for title, run in runs.items():
        if figures := training_figures(run.get("curves") or {}, f"-{title.split()[0].lower()}"):
            yield title, figures


def published_rows(results: Mapping[str, Any], published: Mapping[str, Any]) -> list[PublishedRow]:
    """The figures of one published source beside ours.

    Args:
        results: the results object.
        published: one source out of `results["published"]`; where it gives changes against the model before unlearning, so do we.

    Returns:
        A row for each published figure.
    """
    ours = {model: {f"{f['split']}/{f['task']}/{f['metric']}": f["value"] for f in each} for model, each in results["figures"].items()}
    changes = "changes" in published
    base = ours.get("base", {})

    def shown(value: float | None, before: float | None) -> str:
        return "" if value is None or before is None else f"{value - before:{'+' if changes else ''}.3f}"

    rows = []
    for index, key in enumerate(published["figures"]):
        own = [shown(each.get(key), base.get(key) if changes else 0.0) for each in ours.values()]
        theirs = published["changes" if changes else "models"]
        rows.append(PublishedRow(key, own, [shown(values[index], 0.0) for values in theirs.values()]))
    return rows


def benchmark_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal, with the interval of the unlearned model."""
    models = list(results["figures"])
    focus = models.index("unlearned") if "unlearned" in models else 0
    title = results["benchmark"]["title"]
    caption = f"{title}; intervals (95 %, over people): {model_name(models[focus]).lower()}. Arrows: better direction."
    names = [escape(model_name(model)) for model in models]
    table = plain_table(caption, left=("Split", "Task", "Metric"), right=(*names, "Interval"))
    for split, rows in metric_rows(results).items():
        for row in rows:
            values = [value for value, _ in row.cells]
            last = row is rows[-1]
            table.add_row(escape(split), escape(row.task), f"{row.metric} {row.arrow}", *values, row.cells[focus][1], end_section=last)
    return table


def published_table(results: Mapping[str, Any]) -> list[Table]:
    """Published figures beside ours for the terminal, one table for each source."""
    tables = []
    for source in results["published"]:
        changes = " Changes against the model before unlearning." if "changes" in source else ""
        names = [escape(model_name(model)) for model in results["figures"]]
        table = plain_table(f"Ours, then {escape(source['source'])}.{changes}", left=("Figure",), right=names)
        for name in source.get("models") or source["changes"]:
            table.add_column(escape(name), justify="right")
        for row in published_rows(results, source):
            table.add_row(escape(row.key), *row.ours, *row.theirs)
        tables.append(table)
    return tables
