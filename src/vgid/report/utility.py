"""Figures of general utility as one page and as a table; both only read the results object (schema `vgid.utility/1`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from vgid.errors import DataError
from vgid.report.html import environment
from vgid.report.words import model_name

SCHEMA = "vgid.utility/1"


class UtilityRow(NamedTuple):
    """A figure of a suite: its name, a (value, interval) cell a model, and what is left of the base's."""

    name: str
    n: str
    cells: list[tuple[str, str]]
    left: tuple[str, str]


def utility_rows(results: Mapping[str, Any]) -> dict[str, list[UtilityRow]]:
    """Lines by suite."""
    made: dict[str, list[UtilityRow]] = {}
    for suite, found in results["suites"].items():
        by_model = {name: {(f["task"], f["metric"]): f for f in each} for name, each in found["figures"].items()}
        left = {figure["task"]: figure for figure in found["relative"]}
        made[suite] = []
        for key in dict.fromkeys(key for each in by_model.values() for key in each):
            figures = [each.get(key) for each in by_model.values()]
            n = next(str(figure["n"] or "") for figure in figures if figure is not None)
            cells, rest = [_cell(figure) for figure in figures], left.get(key[0], left.get("/".join(key)))
            made[suite].append(UtilityRow(" ".join(key), n, cells, _cell(rest)))
    return made


def _cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    if figure is None:
        return "", ""
    interval = figure["interval"]
    return f"{figure['value']:.3f}", "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def render_utility(results: Mapping[str, Any]) -> str:
    """The page as text; everything in it is escaped.

    Raises:
        DataError: the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise DataError("these results cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(results.get("schema")))
    models = [(name, model_name(name)) for name in results["models"]]
    page: str = environment().get_template("utility.html.j2").render(results=results, models=models, suites=utility_rows(results))
    return page


def utility_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    table.caption = "Left: after unlearning over before; 95 % intervals, over people where the suite is built in."
    for heading in ("Suite", "Figure"):
        table.add_column(heading, no_wrap=True)
    for name in results["models"]:
        table.add_column(escape(model_name(name)), justify="right", no_wrap=True)
    for heading in ("Left", "Interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for suite, each in utility_rows(results).items():
        for line in each:
            table.add_row(escape(suite), escape(line.name), *(value for value, _ in line.cells), *line.left, end_section=line is each[-1])
    return table
