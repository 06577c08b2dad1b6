"""The figures of general utility (schema `vgid.utility/1`) as one page and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table
from vgid.report.words import figure_cell, model_name

SCHEMA = "vgid.utility/1"


class UtilityRow(NamedTuple):
    """A figure of a suite as it is shown.

    Attributes:
        name: task and metric.
        n: number of questions; empty where it is not known.
        cells: value and interval for each model.
        left: value and interval of what is left after unlearning, relative to before.
    """

    name: str
    n: str
    cells: list[tuple[str, str]]
    left: tuple[str, str]


def utility_rows(results: Mapping[str, Any]) -> dict[str, list[UtilityRow]]:
    """The rows of the table of figures, by suite."""
    rows: dict[str, list[UtilityRow]] = {}
    for suite, found in results["suites"].items():
        by_model = {name: {(f["task"], f["metric"]): f for f in each} for name, each in found["figures"].items()}
        left = {figure["task"]: figure for figure in found["relative"]}
        rows[suite] = []
        for key in dict.fromkeys(key for each in by_model.values() for key in each):
            figures = [each.get(key) for each in by_model.values()]
            n = next(str(figure["n"] or "") for figure in figures if figure is not None)
            # A suite gives what is left by task, or by task and metric.
            rest = left.get(key[0], left.get("/".join(key)))
            rows[suite].append(UtilityRow(" ".join(key), n, [figure_cell(figure) for figure in figures], figure_cell(rest)))
    return rows


def render_utility(results: Mapping[str, Any]) -> str:
    """Render the page of general utility; everything in it is escaped.

    Raises:
        DataError: the results are not of schema `vgid.utility/1`.
    """
    check_schema(results, SCHEMA)
    models = [(name, model_name(name)) for name in results["models"]]
    return render_template("utility.html.j2", results=results, models=models, suites=utility_rows(results))


def utility_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    caption = "Left: after unlearning, relative to before; 95 % intervals, over people where the suite is built in."
    names = [escape(model_name(name)) for name in results["models"]]
    table = plain_table(caption, left=("Suite", "Figure"), right=(*names, "Left", "Interval"))
    for suite, rows in utility_rows(results).items():
        for row in rows:
            table.add_row(escape(suite), escape(row.name), *(value for value, _ in row.cells), *row.left, end_section=row is rows[-1])
    return table
