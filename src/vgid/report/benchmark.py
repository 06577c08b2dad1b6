"""A benchmark's results as one page and as a table; both only read the results object (schema `vgid.benchmark/1`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from vgid.errors import DataError
from vgid.report.words import model_name

SCHEMA = "vgid.benchmark/1"
ARROWS = {"up": "\u2191", "down": "\u2193", "none": ""}
PRECONDITION = {
    True: "The model knew the forget set before unlearning, so that forgetting can be measured.",
    False: "The model hardly knew more of the forget set than one that never saw it: nothing can be said about forgetting.",
}


class MetricRow(NamedTuple):
    """A metric of a task: its name, where it should go, what it means, the number of answers, and a cell a model."""

    task: str
    metric: str
    arrow: str
    text: str
    n: int
    cells: tuple[tuple[str, str], ...]


def metric_rows(results: Mapping[str, Any]) -> dict[str, list[MetricRow]]:
    """Lines by split, in the order of the results."""
    figures: Mapping[str, Sequence[Mapping[str, Any]]] = results["figures"]
    named = {model: {(f["split"], f["task"], f["metric"]): f for f in each} for model, each in figures.items()}
    keys = list(dict.fromkeys(key for each in named.values() for key in each))
    made: dict[str, list[MetricRow]] = {}
    for split, task, metric in keys:
        found = [each.get((split, task, metric)) for each in named.values()]
        first = next(f for f in found if f is not None)
        cells = tuple(_cell(f) for f in found)
        made.setdefault(split, []).append(
            MetricRow(task, metric, ARROWS[first["direction"]], results["metrics"][metric], first["n"], cells)
        )
    return made


def _cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """A value, and its interval."""
    if figure is None:
        return "", ""
    interval = figure["interval"]
    value = f"{figure['value']:.3f}" if figure["value"] >= 0.001 or figure["value"] == 0 else f"{figure['value']:.1e}"
    return value, "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def render_benchmark(results: Mapping[str, Any]) -> str:
    """The page as text; everything in it is escaped.

    Raises:
        DataError: the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise DataError("these results cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(results.get("schema")))
    models = list(results["figures"])
    from vgid.report import view
    from vgid.report.html import environment

    page: str = (
        environment()
        .get_template("benchmark.html.j2")
        .render(
            results=results,
            models=[(model, model_name(model)) for model in models],
            splits=metric_rows(results),
            composite=results["composite"],
            published=[(each, published_rows(results, each)) for each in results["published"]],
            settings=list(view.flatten((results["unlearning"] or {}).get("config") or {})),
            precondition=PRECONDITION[results["composite"]["known"]] if results["composite"] else "",
        )
    )
    return page


class PublishedRow(NamedTuple):
    """A figure that others published: what is measured, our models' values, theirs."""

    key: str
    ours: list[str]
    theirs: list[str]


def published_rows(results: Mapping[str, Any], published: Mapping[str, Any]) -> list[PublishedRow]:
    """One source's figures beside ours; where it gives changes, ours are changes against the model before unlearning."""
    ours = {model: {f"{f['split']}/{f['task']}/{f['metric']}": f["value"] for f in each} for model, each in results["figures"].items()}
    changes = "changes" in published
    before = ours.get("base", {})
    rows = []
    for index, key in enumerate(published["figures"]):
        own = [_beside(each.get(key), before.get(key) if changes else 0.0, changes) for model, each in ours.items()]
        theirs = published["changes" if changes else "models"]
        rows.append(PublishedRow(key, own, [_beside(values[index], 0.0, changes) for values in theirs.values()]))
    return rows


def _beside(value: float | None, before: float | None, changes: bool) -> str:
    return "" if value is None or before is None else f"{value - before:{'+' if changes else ''}.3f}"


def benchmark_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal, with the interval of the unlearned model."""
    models = list(results["figures"])
    focus = models.index("unlearned") if "unlearned" in models else 0
    title = results["benchmark"]["title"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    table.caption = f"{title}; intervals (95 %, over people): {model_name(models[focus]).lower()}. Arrows: where it should go."
    for heading in ("Split", "Task", "Metric"):
        table.add_column(heading, no_wrap=True)
    for model in models:
        table.add_column(escape(model_name(model)), justify="right", no_wrap=True)
    table.add_column("Interval", justify="right", no_wrap=True)
    for split, each in metric_rows(results).items():
        for line in each:
            values = [value for value, _ in line.cells]
            last = line is each[-1]
            table.add_row(escape(split), escape(line.task), f"{line.metric} {line.arrow}", *values, line.cells[focus][1], end_section=last)
    return table


def published_table(results: Mapping[str, Any]) -> list[Table]:
    """Published figures beside ours for the terminal, a table a source."""
    made = []
    for source in results["published"]:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
        changes = " Changes against the model before unlearning." if "changes" in source else ""
        table.caption = f"Ours, then {escape(source['source'])}.{changes}"
        table.add_column("Figure", no_wrap=True)
        for model in results["figures"]:
            table.add_column(escape(model_name(model)), justify="right", no_wrap=True)
        for name in source.get("models") or source["changes"]:
            table.add_column(escape(name), justify="right")
        for row in published_rows(results, source):
            table.add_row(escape(row.key), *row.ours, *row.theirs)
        made.append(table)
    return made
