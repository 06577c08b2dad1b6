"""An ablation (schema `vgid.experiment.ablate/1`) as a page with plots, and as tables for the terminal and for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.markup import escape
from rich.table import Table

from vgid.report import plots
from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table
from vgid.report.training import small_figures

SCHEMA = "vgid.experiment.ablate/1"
COLUMNS = {
    "forget": "forgotten facts stated",
    "prefill": "after a begun answer",
    "forget_rouge_l": "ROUGE-L, forgotten",
    "retain": "retained facts stated",
    "retain_rouge_l": "ROUGE-L, retained",
}
"""Figures of a model and their headings."""
COMPARED = ("before unlearning", "retrained", "default")
"""Models that stand above every sweep."""


def render_ablation(results: Mapping[str, Any]) -> str:
    """Render the page; everything in it is escaped, and it holds figures only.

    Raises:
        DataError: the results are of another schema.
    """
    check_schema(results, SCHEMA)
    drawn = {name: Markup(sweep_plot(results, name)) for name in results["sweeps"]}
    lines = {name: rows(results, name) for name in results["sweeps"]}
    return render_template(
        "ablation.html.j2",
        results=results,
        columns=COLUMNS.values(),
        lines=lines,
        plots=drawn,
        caption=caption(results),
        training=small_figures(results.get("curves", {})),
    )


def sweep_plot(results: Mapping[str, Any], name: str) -> str:
    """The plot of a sweep: what is stated of forgotten people, plainly and after a begun answer, and of retained people."""
    labels = results["sweeps"][name]
    models = [results["models"][f"{name} {label}"] for label in labels]
    keys = ("forget", "prefill", "retain")
    return plots.sweep(name, labels, {COLUMNS[key]: [(each[key]["value"], *each[key]["interval"]) for each in models] for key in keys})


def caption(results: Mapping[str, Any]) -> str:
    """What was measured, in one sentence."""
    counts, people, seeds = results["questions"], results["people"], ", ".join(map(str, results["seeds"]))
    settings = f"recipe {results['recipe']}" + (f" with the method settings of {results['variant']}" if results["variant"] else "")
    return (
        f"Shares and ROUGE-L in %, with 95 % intervals over people; {counts['forget']} questions about {people['forget']} forgotten and "
        f"{counts['retain']} about {people['retain']} retained people; seeds {seeds}; {settings}, one setting changed at a time."
    )


def rows(results: Mapping[str, Any], name: str) -> list[list[str]]:
    """The lines of a sweep's table: what is compared with, then each value."""
    models = {shown: shown for shown in COMPARED} | {label: f"{name} {label}" for label in results["sweeps"][name]}
    return [[shown, *_cells(results["models"][model])] for shown, model in models.items()]


def ablation_markdown(results: Mapping[str, Any]) -> str:
    """A table for each sweep, as Markdown."""
    parts = [caption(results), ""]
    for name in results["sweeps"]:
        parts += [f"| {name} | {' | '.join(COLUMNS.values())} |", f"|---|{'---:|' * len(COLUMNS)}"]
        parts += [f"| {' | '.join(line)} |" for line in rows(results, name)]
        parts.append("")
    return "\n".join(parts)


def ablation_latex(results: Mapping[str, Any]) -> str:
    """A table for each sweep, as LaTeX; they need the package `booktabs`."""
    parts = [f"% {caption(results)}"]
    for name in results["sweeps"]:
        parts += [rf"\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}", r"\toprule", rf"{_latex([name, *COLUMNS.values()])} \\", r"\midrule"]
        parts += [rf"{_latex(line)} \\" for line in rows(results, name)]
        parts += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(parts)


def ablation_table(results: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    table = plain_table(
        "In %. Begun: stated after the beginning of the answer.", left=("Setting",), right=("Forget", "Begun", "Retain", "Seconds")
    )
    for name, each in results["models"].items():
        shares = [f"{100 * each[key]['value']:.1f}" for key in ("forget", "prefill", "retain")]
        table.add_row(escape(name), *shares, f"{each['seconds']:.0f}")
    return table


def _cells(figures: Mapping[str, Any]) -> list[str]:
    shown = []
    for key in COLUMNS:
        low, high = (100 * end for end in figures[key]["interval"])
        shown.append(f"{100 * figures[key]['value']:.1f} ({low:.1f} to {high:.1f})")
    return shown


def _latex(cells: Sequence[str]) -> str:
    return " & ".join(cells).replace("_", r"\_").replace("%", r"\%")
