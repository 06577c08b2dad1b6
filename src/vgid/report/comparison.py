"""A comparison as one page, as a table for the terminal and as one for papers; all only read the results (schema `vgid.comparison/1`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich import box
from rich.markup import escape
from rich.table import Table

from vgid.errors import DataError
from vgid.report import plots, view
from vgid.report.html import ReportExample, environment
from vgid.report.words import GROUPS, split_group

SCHEMA = "vgid.comparison/1"
REFERENCES = {"untouched": "base", "retrain": "retrained"}
"""Models that are shown in colours of their own."""
CORNER = 0.9
"""Where the best of them crowd, both scores; drawn once more, enlarged."""
BUDGETS = {"equal-steps": "the same number of steps for all that train", "equal-time": "as much time as VGID takes for all that train"}


def render_comparison(results: Mapping[str, Any], examples: Sequence[ReportExample] = ()) -> str:
    """The page as text; everything in it is escaped. `examples` are shown as they are.

    Raises:
        DataError: the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise DataError("these results cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(results.get("schema")))
    drawn = points(results)
    page: str = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            results=results,
            title=headline(results),
            methods=list(results["scores"]),
            references=REFERENCES,
            budget=BUDGETS[results["budget"]],
            points=drawn,
            scatter=Markup(plots.front(drawn, results["pareto"])),
            corner=_corner(drawn, results["pareto"]),
            corner_from=CORNER,
            looks=_looks(results.get("looks", {})),
            groups=view.groups(results["splits"], list(results["scores"])),
            examples=[(label, each) for label, each in _grouped(examples).items() if each],
            settings={name: list(view.flatten(config)) for name, config in results["configs"].items()},
        )
    )
    return page


def headline(results: Mapping[str, Any]) -> str:
    """Who leads, and over whom it is sure."""
    ranked = [name for name in results["scores"] if name not in REFERENCES]
    if not ranked:
        return "No method was scored."
    first = ranked[0]
    sure = [pair["than"] for pair in results["pairs"] if pair["better"] == first and pair["p_value"] < 0.05]
    behind = f"surely ahead of {len(sure)} of {len(ranked) - 1} others (p < 0.05)" if len(ranked) > 1 else "and was compared with no other"
    return f"{first} has the best composite score, {results['scores'][first]['composite']:.3f}, {behind}"


def points(results: Mapping[str, Any]) -> list[plots.Point]:
    """Forgetting and utility of every method, with intervals."""
    looks = [(series, marker) for marker in plots.GLYPHS for series in plots.SERIES if series not in REFERENCES.values()]
    others = iter(looks)
    return [
        plots.Point(name, *look, each["forgetting"], each["utility"], tuple(each["forgetting_ci"]), tuple(each["utility_ci"]))
        for name, each in results["scores"].items()
        for look in [(REFERENCES[name], "o") if name in REFERENCES else next(others)]
    ]


def comparison_markdown(results: Mapping[str, Any]) -> str:
    """The table for papers: scores, accuracy in percent on every split, and cost."""
    splits = list(results["splits"])
    head = ["method", "composite", "forgetting", "utility", *(f"`{split}`" for split in splits), "seconds"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, each in results["scores"].items():
        shares = [f"{100 * results['splits'][split][name]['accuracy']:.1f}" for split in splits]
        numbers = [_with_interval(each, "composite"), f"{each['forgetting']:.3f}", f"{each['utility']:.3f}"]
        lines.append(f"| {' | '.join([name, *numbers, *shares, format(results['cost'][name]['seconds'], '.1f')])} |")
    lines += [f"| {name} | failed: {reasons[0]} |{' |' * (len(head) - 2)}" for name, reasons in results["failed"].items()]
    return "\n".join([*lines, "", _caption(results), ""])


def comparison_table(results: Mapping[str, Any]) -> Table:
    """Scores for the terminal, the composite first; `sure` says whether the first is better for sure (p < 0.05)."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=_caption(results), caption_justify="left")
    table.add_column("Method", no_wrap=True)
    for heading in ("Composite", "95 %", "Forgetting", "Utility", "p", "Seconds", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
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


def _corner(drawn: Sequence[plots.Point], names: Sequence[str]) -> Markup | None:
    crowded = sum(min(point.x, point.y) >= CORNER for point in drawn) > 1
    return Markup(plots.front(drawn, names, CORNER)) if crowded else None


def _looks(looks: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Markup]:
    """A plot for each method that was looked at on the way."""
    return {
        name: Markup(plots.looks(name, {side: [each[side] for each in seeds if side in each] for side in ("forget", "retain")}))
        for name, seeds in looks.items()
    }


def _with_interval(each: Mapping[str, Any], key: str) -> str:
    low, high = each[f"{key}_ci"]
    return f"{each[key]:.3f} ({low:.3f}\u2013{high:.3f})"


def _caption(results: Mapping[str, Any]) -> str:
    seeds, many = ", ".join(map(str, results["seeds"])), "seeds" if len(results["seeds"]) > 1 else "seed"
    who = f"{results['target']}, {results['forget']} of {results['people']} people forgotten, {many} {seeds}, {results['budget']}"
    return f"{who}. p: how often the bootstrap leaves nothing of the leader's lead. Accuracy in %."


def _grouped(examples: Sequence[ReportExample]) -> dict[str, list[ReportExample]]:
    return {label: [each for each in examples if split_group(each.split) == group] for group, label in GROUPS.items()}
