"""An experiment (schema `vgid.experiment.reverse/1`) as a page, and as tables for the terminal and for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table

SCHEMA = "vgid.experiment.reverse/1"
NAMES = {"base": "before unlearning", "vgid": "VGID", "retrained": "retrained"}


def render_experiment(results: Mapping[str, Any]) -> str:
    """Render the page; everything in it is escaped, and it holds figures only.

    Raises:
        DataError: the results are of another schema.
    """
    check_schema(results, SCHEMA)
    return render_template(
        "experiment.html.j2", results=results, names=NAMES, ways=ways(results), caption=caption(results), claim=claim(results)
    )


def ways(results: Mapping[str, Any]) -> list[str]:
    """Names of the ways of asking, in their order; a model may lack some."""
    return list(dict.fromkeys(way for figures in results["entries"].values() for way in figures))


def caption(results: Mapping[str, Any]) -> str:
    """What was measured, in one sentence."""
    seeds, instruction = ", ".join(map(str, results["seeds"])), " ".join(results["instruction"].split())  # on one line, as comments must be
    return (
        f"Share of {results['known']} known facts about {results['people']} forgotten people that each model states, in %, with 95 % "
        f"intervals over people; seeds {seeds}. Instruction: {instruction}; noise: {results['noise']}. "
        "Kept: share of the facts about retained people, by any way."
    )


def claim(results: Mapping[str, Any]) -> list[str]:
    """What was claimed, and whether it was found."""
    claimed, entries = results["claim"], results["entries"]
    lines = []
    for name, holds in claimed["icu"].items():
        share = entries[name]["any"]["share"]
        found = "no share, since the retrained model states nearly as much" if share is None else f"recovered share {share:.2f}"
        bar = f"at least {claimed['least_recovered']:g}"
        lines.append(f"{name}: {found} by any way; claimed: {bar}; {'holds' if holds else 'does not hold'}.")
    worst = max(entries["vgid"].items(), key=lambda each: each[1]["above_retrained"])
    lines.append(
        f"VGID: at most {worst[1]['above_retrained']:+.3f} beside the retrained model ({worst[0]}); claimed: at most "
        f"{claimed['most_above_retrained']:+g} by every way; {'holds' if claimed['vgid'] else 'does not hold'}."
    )
    return lines


def _cells(figures: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Rate and interval, in percent, for each way; empty where a way was not asked."""
    cells = []
    for way in names:
        each = figures.get(way)
        low, high = (100 * end for end in each["rate_interval"]) if each else (0, 0)
        cells.append(f"{100 * each['rate']:.1f} ({low:.1f} to {high:.1f})" if each else "")
    return cells


def _kept(figures: Mapping[str, Any]) -> str:
    control = figures["any"]["control"]
    return "" if control is None else f"{100 * control:.1f}"


def experiment_markdown(results: Mapping[str, Any]) -> str:
    """The table for papers, as Markdown."""
    names = ways(results)
    lines = [f"| model | {' | '.join(names)} | kept |", f"|---|{'---:|' * (len(names) + 1)}"]
    for name, figures in results["entries"].items():
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(_cells(figures, names))} | {_kept(figures)} |")
    return "\n".join([*lines, "", caption(results), "", *(f"- {line}" for line in claim(results)), ""])


def experiment_latex(results: Mapping[str, Any]) -> str:
    """The table for papers, as LaTeX; it needs the package `booktabs`."""
    names = ways(results)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(names) + 1)}}}", r"\toprule", f"model & {' & '.join(names)} & kept \\\\", r"\midrule"]
    for name, figures in results["entries"].items():
        cells = [NAMES.get(name, name), *_cells(figures, names), _kept(figures)]
        lines.append(f"{' & '.join(cells)} \\\\")
    escaped = caption(results).replace("%", r"\%").replace("_", r"\_")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {escaped}", ""])


def experiment_table(results: Mapping[str, Any]) -> Table:
    """The rates for the terminal, in percent."""
    names = ways(results)
    table = plain_table(
        f"Known facts stated, in %; {results['known']} facts, {results['people']} people.", left=("Model",), right=(*names, "Kept")
    )
    for name, figures in results["entries"].items():
        rates = [f"{100 * figures[way]['rate']:.0f}" if way in figures else "" for way in names]
        table.add_row(escape(NAMES.get(name, name)), *rates, _kept(figures))
    return table
