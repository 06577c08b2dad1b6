"""A comparison (schema `vgid.comparison/1`) as one page, as a table for the terminal and as one for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.markup import escape
from rich.table import Table

from vgid.report import plots, view
from vgid.report.html import ReportExample, by_group
from vgid.report.rendering import check_schema, render_template
from vgid.report.table import plain_table
from vgid.report.training import small_figures
from vgid.report.words import flatten

SCHEMA = "vgid.comparison/1"
REFERENCES = {"untouched": "base", "retrain": "retrained"}
"""Models that are not methods, each with the name of its colour."""
CORNER = 0.9
"""Least forgetting and utility, in [0, 1], of the points that are drawn once more, enlarged; chosen for readability."""
BUDGETS = {"equal-steps": "the same number of steps for all that train", "equal-time": "as much time as VGID takes for all that train"}
"""What is the same for all methods, by name of the budget."""


def render_comparison(results: Mapping[str, Any], examples: Sequence[ReportExample] = ()) -> str:
    """Render the page of a comparison; everything in it is escaped.

    Args:
        results: the results object.
        examples: shown as they are; give none where forgotten data must not leave the run's folder.

    Returns:
        The page as text.

    Raises:
        DataError: the results are not of schema `vgid.comparison/1`.
    """
    check_schema(results, SCHEMA)
    drawn = points(results)
    crowded = sum(min(point.x, point.y) >= CORNER for point in drawn) > 1
    recalled = {
        name: {side: [each[side] for each in seeds if side in each] for side in ("forget", "retain")}
        for name, seeds in results.get("looks", {}).items()
    }
    return render_template(
        "comparison.html.j2",
        results=results,
        title=headline(results),
        methods=list(results["scores"]),
        references=REFERENCES,
        budget=BUDGETS[results["budget"]],
        points=drawn,
        scatter=Markup(plots.front(drawn, results["pareto"])),
        corner=Markup(plots.front(drawn, results["pareto"], CORNER)) if crowded else None,
        corner_from=CORNER,
        recall={name: Markup(plots.recall(name, lines)) for name, lines in recalled.items()},
        training=small_figures(results.get("curves", {})),
        groups=view.groups(results["splits"], list(results["scores"])),
        examples=by_group(examples),
        settings={name: list(flatten(config)) for name, config in results["configs"].items()},
    )


def headline(results: Mapping[str, Any]) -> str:
    """Which method leads, and over how many others its lead is significant."""
    ranked = [name for name in results["scores"] if name not in REFERENCES]
    if not ranked:
        return "No method was scored."
    first = ranked[0]
    behind = [pair["than"] for pair in results["pairs"] if pair["better"] == first and pair["p_value"] < 0.05]
    lead = f"significantly better than {len(behind)} of {len(ranked) - 1} others (p < 0.05)" if len(ranked) > 1 else "without a competitor"
    return f"{first} has the best composite score, {results['scores'][first]['composite']:.3f}, {lead}"


def points(results: Mapping[str, Any]) -> list[plots.Point]:
    """Forgetting and utility of every method, with intervals; every method gets a colour and a marker of its own."""
    styles = iter([(series, marker) for marker in plots.GLYPHS for series in plots.SERIES if series not in REFERENCES.values()])
    return [
        plots.Point(name, *style, each["forgetting"], each["utility"], tuple(each["forgetting_ci"]), tuple(each["utility_ci"]))
        for name, each in results["scores"].items()
        for style in [(REFERENCES[name], "o") if name in REFERENCES else next(styles)]
    ]


def comparison_markdown(results: Mapping[str, Any]) -> str:
    """The table for papers, as Markdown: scores, accuracy in percent on every split, and cost."""
    splits = list(results["splits"])
    head = ["method", "composite", "forgetting", "utility", *(f"`{split}`" for split in splits), "seconds"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, each in results["scores"].items():
        low, high = each["composite_ci"]
        scores = [f"{each['composite']:.3f} ({low:.3f}\u2013{high:.3f})", f"{each['forgetting']:.3f}", f"{each['utility']:.3f}"]
        shares = [f"{100 * results['splits'][split][name]['accuracy']:.1f}" for split in splits]
        lines.append(f"| {' | '.join([name, *scores, *shares, format(results['cost'][name]['seconds'], '.1f')])} |")
    lines += [f"| {name} | failed: {reasons[0]} |{' |' * (len(head) - 2)}" for name, reasons in results["failed"].items()]
    return "\n".join([*lines, "", _caption(results), ""])


def comparison_table(results: Mapping[str, Any]) -> Table:
    """The scores for the terminal, best composite first; p compares the leading method with each other one."""
    headings = ("Composite", "95 %", "Forgetting", "Utility", "p", "Seconds", "MB")
    table = plain_table(_caption(results), left=("Method",), right=headings)
    leader = next((name for name in results["scores"] if name not in REFERENCES), None)
    chance = {pair["than"]: f"{pair['p_value']:.3f}" for pair in results["pairs"] if pair["better"] == leader}
    for name, each in results["scores"].items():
        cost, (low, high) = results["cost"][name], each["composite_ci"]
        numbers = [f"{each['composite']:.3f}", f"{low:.3f}\u2013{high:.3f}", f"{each['forgetting']:.3f}", f"{each['utility']:.3f}"]
        memory = f"{cost['memory'] / 1e6:.0f}" if cost["memory"] else ""
        table.add_row(escape(name), *numbers, chance.get(name, ""), f"{cost['seconds']:.1f}", memory)
    for name, reasons in results["failed"].items():
        table.add_row(escape(name), "failed", *[""] * 6, end_section=bool(reasons))
    return table


def _caption(results: Mapping[str, Any]) -> str:
    seeds, noun = ", ".join(map(str, results["seeds"])), "seeds" if len(results["seeds"]) > 1 else "seed"
    setup = f"{results['target']}, {results['forget']} of {results['people']} people forgotten, {noun} {seeds}, {results['budget']}"
    return f"{setup}. p: share of bootstrap draws in which the leader's lead vanishes. Accuracy in %."
