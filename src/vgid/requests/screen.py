"""A request on the terminal: the plan of a dry run, and the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from vgid.checks.screen import screen
from vgid.report.audit import COLOURS
from vgid.report.words import people_in_words, percent
from vgid.requests.estimate import RunEstimate
from vgid.requests.forget import ForgetResult


def result_panel(result: ForgetResult, out: Path) -> RenderableType:
    """Show the result of a run in one panel.

    Args:
        result: the record, its digest, and the key.
        out: the run's folder as the user gave it.
    """
    record = result.record
    conclusion, found = record["conclusion"], record["verification"]
    grid = _grid()
    grid.add_row(
        "request",
        f"{escape(record['request']['id'])}: {record['data']['rows']} rows, {people_in_words(len(record['request']['subjects']))}",
    )
    splits = found["evaluation"]
    for name in ("forget", "retain"):
        before, after = (percent(splits[name][model]["accuracy"]) for model in ("base", "unlearned"))
        grid.add_row(name, f"{before} of the answers correct before, {after} after")
    passed = sum(each["status"] == "pass" for each in found["attacks"].values())
    grid.add_row(
        "audit", f"{passed} of {len(found['attacks'])} attacks passed; could not show anything: {', '.join(found['untested']) or 'none'}"
    )
    if record["sequence"]:
        grid.add_row("sequence", _sequence(record["sequence"]))
    grid.add_row("conclusion", escape(conclusion["statement"]))
    if conclusion["next_steps"]:
        grid.add_row("to do", escape("\n".join(conclusion["next_steps"])))
    return _result(grid, result, out)


def exact_panel(result: ForgetResult, out: Path) -> RenderableType:
    """Show the result of a model that was trained again in one panel.

    Args:
        result: the record, its digest, and the key.
        out: the run's folder as the user gave it.
    """
    record, grid = result.record, _grid()
    exact, data = record["exact"], record["data"]
    grid.add_row(
        "request", f"{escape(record['request']['id'])}: {data['rows']} rows, {people_in_words(len(record['request']['subjects']))}"
    )
    grid.add_row("trained on", f"{data['retain_rows']} rows, {exact['taken_out']} were taken out; {percent(exact['learned'])} answered")
    grid.add_row("conclusion", escape(record["conclusion"]["statement"]))
    if record["conclusion"]["next_steps"]:
        grid.add_row("to do", escape("\n".join(record["conclusion"]["next_steps"])))
    return _result(grid, result, out)


def _result(grid: Table, result: ForgetResult, out: Path) -> RenderableType:
    """Add where everything is, and what to keep."""
    for name, path in (("model", out / "merged"), ("record", out / "record.json"), ("page", out / "record.html")):
        grid.add_row(name, escape(str(path)))
    grid.add_row("sha-256", f"{result.sha256} (of record.json: note it elsewhere)")
    key = escape(str(result.key))
    grid.add_row("key", f"{key}: keep it to look people up and to check the record; destroy it, and nobody can connect the two any more")
    grid.add_row("next", f"vgid purge {escape(str(out))} removes temporary files; retire models that still know")
    status = result.record["conclusion"]["status"]
    return Panel(grid, title="Result", title_align="left", subtitle=f"[bold {COLOURS[status]}]{status}[/]", subtitle_align="left")


def _sequence(sequence: Mapping[str, Any]) -> str:
    drift, states = sequence["drift"], [each["status"] for each in sequence["earlier"]]
    counts = ", ".join(f"{states.count(status)} {status}" for status in dict.fromkeys(states))
    lost = "unknown" if drift["drop"] is None else f"{100 * drift['drop']:.1f} points"
    return f"{drift['requests']} requests; earlier ones now: {counts}; accuracy on the retain rows lost since the first: {lost}"


def estimate_panel(estimate: RunEstimate) -> RenderableType:
    """Show the preflight, and the steps with the time that each may take."""
    grid, made = _grid(), estimate.enriched
    counts = ", ".join(f"{kind} {count}" for kind, count in made.made.items())
    grid.add_row(
        "rows made", f"{len(made.forget)} to forget, {len(made.held_out)} held out, {len(made.retain)} to keep ({counts or 'none'})"
    )
    for sentence in made.left_open:
        grid.add_row("left open", escape(sentence))
    for name, seconds in estimate.seconds.items():
        grid.add_row(name, "less than a second" if seconds is None or seconds < 1 else f"about {_duration(seconds)}")
    grid.add_row("in all", f"about {_duration(sum(each or 0 for each in estimate.seconds.values()))}, by {estimate.basis}")
    plan = Panel(grid, title="Plan", title_align="left", subtitle="nothing was written", subtitle_align="left")
    return Group(screen(estimate.preflight), plan)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
