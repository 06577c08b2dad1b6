"""Requests in a row (schema `vgid.experiment.sequence/1`) as tables for the terminal and for papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from vgid.report.table import plain_table

COLUMNS = {"own": "its own facts", "earlier": "earlier requests", "later": "later requests", "stay": "people who stay"}
"""Headings of the sets of facts that are asked."""
SHOWN = 12
"""Requests that the terminal shows, evenly over all."""


def sequence_markdown(results: Mapping[str, Any]) -> str:
    """All requests, as Markdown."""
    lines = [caption(results), "", f"| request | {' | '.join(COLUMNS.values())} |", f"|---|{'---:|' * len(COLUMNS)}"]
    lines += [f"| {step['request'] or 'before'} | {' | '.join(_shares(step))} |" for step in results["steps"]]
    return "\n".join([*lines, "", summary(results), ""])


def sequence_table(results: Mapping[str, Any]) -> Table:
    """Some requests, the first and the last among them, for the terminal."""
    table = plain_table(caption(results), left=("Request",), right=tuple(COLUMNS.values()))
    steps = results["steps"]
    places = sorted({round(place * (len(steps) - 1) / (min(SHOWN, len(steps)) - 1)) for place in range(min(SHOWN, len(steps)))})
    for step in (steps[place] for place in places):
        table.add_row(str(step["request"] or "before"), *_shares(step))
    return table


def caption(results: Mapping[str, Any]) -> str:
    """What was measured, in one sentence."""
    people, other = results["people"], "other rows than are trained on" if results["held_out"] else "the rows that are trained on"
    return f"Answered, in %: {people['requests']} requests of one person each, {people['stay']} people stay; {other} are asked."


def summary(results: Mapping[str, Any]) -> str:
    """What the requests achieved and cost in all, in one sentence."""
    found = results["summary"]
    told = [
        f"{heading}: {100 * found[name]['mean']:.1f} % answered on average, {100 * found[name]['worst']:.1f} % at most"
        for name, heading in (("own", "Own facts"), ("earlier", "facts of earlier requests"))
        if found[name]
    ]
    lost = found["drop"]
    if lost is not None:
        told.append(f"people who stay lost {100 * lost:.1f} points in all, {100 * found['largest_drop']:.1f} at most after any request")
    return f"{'; '.join(told)}."


def _shares(step: Mapping[str, Any]) -> list[str]:
    return [f"{100 * step[name]:.1f}" if step[name] is not None else "" for name in COLUMNS]
