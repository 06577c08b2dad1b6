"""A test of metrics (schema `vgid.metrics.meta/1`) as a page, and as tables for the terminal and for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table

SCHEMA = "vgid.metrics.meta/1"
COLUMNS = ("faithfulness", "95 %", "models", "shams", "relearned", "rounded", "prefix", "sampled", "score", "trust")
"""Headings of the figures of a metric."""


def render_meta(results: Mapping[str, Any]) -> str:
    """Render the page; everything in it is escaped, and it holds figures only.

    Raises:
        DataError: the results are of another schema.
    """
    check_schema(results, SCHEMA)
    lines = {name: cells(figures) for name, figures in results["metrics"].items()}
    return render_template("meta.html.j2", results=results, columns=COLUMNS, lines=lines, caption=caption(results), found=trusted(results))


def cells(figures: Mapping[str, Any]) -> list[str]:
    """The figures of a metric under the headings of `COLUMNS`; a dash where there is none."""
    low_high = figures["interval"]
    return [
        _number(figures["faithfulness"]),
        f"{low_high[0]:.2f} to {low_high[1]:.2f}" if low_high else "–",
        _number(figures["models"]),
        _number(figures["shams"]),
        *(_number(value) for value in figures["robustness"].values()),
        _number(figures["score"]),
        "yes" if figures["trusted"] else "no" if figures["score"] is not None else "–",
    ]


def caption(results: Mapping[str, Any]) -> str:
    """What was measured."""
    names = {"knows": "that know", "never knew": "that never knew", "sham": "shams"}
    made = ", ".join(f"{count} {names.get(role, role)}" for role, count in results["models"].items())
    return (
        f"{results['people']} forgotten people, {results['rows']} rows, models: {made}; seeds {', '.join(map(str, results['seeds']))}. "
        "Faithfulness: AUC of people in models that know against people in models that never knew, with its interval over people; "
        "models: the same for whole models; shams: AUC of people in models that hide the facts against people in models that never knew. "
        "Robustness to relearning, rounding to 4 bits, a prefix and drawn answers: 1 minus how much more the metric rises than in a model "
        "that never knew. Score: harmonic mean of faithfulness and robustness. Rebound compares shams with models that never knew, "
        "gibberish a collapsed model with all others. Trust: faithfulness, shams and robustness of at least "
        f"{results['limits']['trusted']:g}."
    )


def trusted(results: Mapping[str, Any], marked: bool = False) -> str:
    """Which metrics and attacks to trust, in a sentence; names are `marked` as code for Markdown."""
    names = [_shown(name) if marked else name for name in results["trusted"]]
    return f"To be trusted by these limits: {'; '.join(names)}." if names else "None is to be trusted by these limits."


def meta_markdown(results: Mapping[str, Any]) -> str:
    """The table for papers, as Markdown."""
    lines = [f"| metric or attack | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    lines += [f"| {_shown(name)} | {' | '.join(cells(figures))} |" for name, figures in results["metrics"].items()]
    return "\n".join([*lines, "", caption(results), "", trusted(results, marked=True), ""])


def meta_latex(results: Mapping[str, Any]) -> str:
    """The table for papers, as LaTeX; it needs the package `booktabs`."""
    head = " & ".join(("metric or attack", *COLUMNS)).replace("%", r"\%")
    lines = [rf"\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for name, figures in results["metrics"].items():
        lines.append(rf"{' & '.join([name, *cells(figures)])} \\".replace("_", r"\_").replace("%", r"\%").replace("–", "--"))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {caption(results)}", ""])


def meta_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    wanted = ("faithfulness", "shams", "relearned", "rounded", "prefix", "sampled", "score", "trust")
    places = [COLUMNS.index(name) for name in wanted]
    table = plain_table("", left=("Metric or attack",), right=("Faithful", "Shams", *map(str.capitalize, wanted[2:])))
    for name, figures in results["metrics"].items():
        shown = cells(figures)
        table.add_row(escape(name), *(shown[place] for place in places))
    return table


def metrics_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The metrics of `vgid metrics list`."""
    table = plain_table("Sources: arXiv numbers.", left=("Metric", "Measures", "Reads", "Needs", "Source"))
    for row in rows:
        table.add_row(escape(row["name"]), row["measures"], row["reads"], ", ".join(row["needs"]), escape(row["paper"]))
    return table


def values_table(results: Mapping[str, Any]) -> Table:
    """The values of `vgid metrics measure`, with their intervals."""
    table = plain_table(f"{results['rows']} forget rows, {results['people']} people.", left=("Metric",), right=("Value", "95 %"))
    table.add_column("Unit")
    for name, each in results["metrics"].items():
        low, high = each["interval"]
        table.add_row(escape(name), f"{each['value']:.3f}", f"{low:.3f} to {high:.3f}", escape(each["unit"]))
    return table


def _shown(name: str) -> str:
    head, comma, level = name.partition(", ")
    return f"`{head}`{comma}{level}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
