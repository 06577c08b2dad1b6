"""An audit as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from vgid.data.example import Example
from vgid.report.audit_page import recovered_facts
from vgid.report.table import plain_table

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
"""Colour of each status."""


def audit_table(results: Mapping[str, Any]) -> Table:
    """One row for each level of each attack: facts, rates of the models, recovered share with its interval, status."""
    few = results.get("unit") == "fact"
    tested = " p: chance of finding decoys as well, over all levels; Seen: smallest share that would have been significant." if few else ""
    columns = ("Facts", "Clean", "Attacked", "Base", "Retrained", "Retain", "Share", "Interval", "Allowed", *(("p", "Seen") if few else ()))
    table = plain_table(
        f"Rates in % of the facts the base knew; AUC for membership. Share: recovered, 0 = retrained or guessing, 1 = the base.{tested}",
        left=("Attack", "Level"),
        right=columns,
    )
    table.add_column("Status", no_wrap=True)
    for name, attack in results["attacks"].items():
        shown = escape(name) if attack["required"] else f"{escape(name)} (optional)"
        if not attack["levels"]:
            table.add_row(shown, *[""] * (1 + len(columns)), _status(attack), end_section=True)
        for level, figures in attack["levels"].items():
            last = level == list(attack["levels"])[-1]
            cells = [*_cells(figures), f"{attack['most']:.2f}", *(_test_cells(figures) if few else ())]
            table.add_row(shown, escape(level), *cells, _status(figures), end_section=last)
            shown = ""
    return table


def recovered_table(results: Mapping[str, Any], forget: Sequence[Example]) -> Table:
    """The facts that came back, with the first of their rows: this repeats what was forgotten, so it is for the screen of its owner alone.

    Args:
        results: the results object.
        forget: the forget rows that were audited, all of them, in their order.

    Returns:
        A table for the terminal, those facts that most attacks brought back first.
    """
    table = plain_table("Facts that came back. Nothing of this is written to files.", left=("Rows",))
    for heading in ("Question", "Answer", "Brought back by"):
        table.add_column(heading, overflow="fold")
    for fact in recovered_facts(results) or ():
        first = forget[fact.rows[0] - 1]
        attacks = ", ".join(name for name, _ in fact.attacks)
        table.add_row(", ".join(map(str, fact.rows)), escape(first.question), escape(first.answer), escape(attacks))
    return table


def verdict_line(results: Mapping[str, Any]) -> str:
    """The verdict in one line, with its reasons, as rich markup."""
    verdict, knowledge, utility = results["verdict"], results["knowledge"], results["utility"]
    ratio = "unknown" if utility["ratio"] is None else f"{utility['ratio']:.2f}"
    parts = [f"{knowledge['known']} of {knowledge['asked']} facts were known, utility {ratio} (floor {utility['floor']:.2f})"]
    parts += [escape("; ".join(verdict["reasons"]))] if verdict["reasons"] else []
    parts += [f"untested: {escape(', '.join(verdict['untested']))}"] if verdict["untested"] else []
    return f"[bold {COLOURS[verdict['status']]}]{verdict['status']}[/]: {'. '.join(parts)}"


def _cells(figures: Mapping[str, Any]) -> list[str]:
    rates = figures.get("recovered") or figures.get("auc") or {}
    control = figures.get("control") or {}
    models = [_percent(rates.get(role)) for role in ("audited", "base", "retrained")]
    share = "" if figures["share"] is None else f"{figures['share']:.2f}"
    interval = "" if figures["interval"] is None else "{:.2f} to {:.2f}".format(*figures["interval"])
    return [str(figures["facts"]), _percent(figures["clean"]["audited"]), *models, _percent(control.get("audited")), share, interval]


def _test_cells(figures: Mapping[str, Any]) -> list[str]:
    test = figures.get("test")
    return [f"{test['adjusted']:.3f}", "" if test["detectable"] is None else f"{test['detectable']:.2f}"] if test else ["", ""]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _status(figures: Mapping[str, Any]) -> str:
    reason = f" ({escape(figures['reason'])})" if figures["status"] == "inconclusive" else ""
    return f"[{COLOURS[figures['status']]}]{figures['status']}[/]{reason}"
