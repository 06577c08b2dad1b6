"""An audit as one page: verdict, every attack beside its controls, leakage over relearning budgets, shares by modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from vgid.errors import DataError
from vgid.report import plots, view
from vgid.report.html import environment

SCHEMA = "vgid.audit/1"
SERIES = {"audited": "unlearned", "base": "base", "retrained": "retrained"}
"""Models in the order they are shown, and the colour of each."""
HEADLINES = {
    "pass": "Nothing that was tried brought the forgotten facts back",
    "fail": "The forgotten facts can be had back",
    "inconclusive": "The audit could not decide",
}
MARKS = {"pass": "\u2713", "fail": "\u2715", "inconclusive": "?"}


class AuditLevel(NamedTuple):
    """A level of an attack: what it is called, its status, its share with interval and bar (in percent), and rates of the models."""

    level: str
    facts: int
    status: str
    reason: str
    share: str
    interval: str
    bar: tuple[float, float, float]
    rates: tuple[tuple[str, str], ...]
    controls: tuple[tuple[str, str], ...]


def render_audit(results: Mapping[str, Any]) -> str:
    """The page as text; everything in it is escaped, nothing of what was asked or answered is in it.

    Raises:
        DataError: the results are of another schema.
    """
    if results.get("schema") != SCHEMA:
        raise DataError("these results cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(results.get("schema")))
    curves = leakage(results)
    page: str = (
        environment()
        .get_template("audit.html.j2")
        .render(
            results=results,
            headline=headline(results),
            tiles=list(tiles(results)),
            attacks={name: (each, [audit_level(*level) for level in each["levels"].items()]) for name, each in results["attacks"].items()},
            marks=MARKS,
            series=SERIES,
            leakage=Markup(plots.leakage({SERIES[role]: points for role, points in curves.items()})) if curves else None,
            leaking=list(curves),
            modality=list(modality(results)),
            settings=list(view.flatten({"policy": {k: v for k, v in results["policy"].items() if k != "attacks"}})),
            budgets={name: list(view.flatten(each["budget"])) for name, each in results["attacks"].items()},
        )
    )
    return page


def headline(results: Mapping[str, Any]) -> str:
    """The verdict in a sentence; a model that broke is not called leaking."""
    verdict, utility = results["verdict"], results["utility"]
    failed = [name for name, each in results["attacks"].items() if each["required"] and each["status"] == "fail"]
    if verdict["status"] == "fail" and not failed:
        return f"The model lost too much of what it should have kept: {_percent(utility['ratio'])} is left"
    return HEADLINES[verdict["status"]]


def tiles(results: Mapping[str, Any]) -> Iterator[view.Tile]:
    """The figures at the top."""
    knowledge, utility, attacks = results["knowledge"], results["utility"], results["attacks"].values()
    counts = {status: sum(each["status"] == status for each in attacks) for status in MARKS}
    worst = max((level["share"] for each in attacks for level in each["levels"].values() if level["status"] == "fail"), default=None)
    asked = f"{knowledge['known']} of {knowledge['asked']} facts were known"
    yield view.Tile("Facts, asked plainly", _percent(knowledge["clean"]["base"]), _percent(knowledge["clean"]["audited"]), asked)
    yield view.Tile("Attacks that failed it", None, str(counts["fail"]), f"{counts['pass']} passed, {counts['inconclusive']} open")
    yield view.Tile("Worst recovered share", None, "none" if worst is None else f"{worst:.2f}", "of attacks that failed it")
    yield view.Tile("Retained facts", None, _percent(utility["ratio"]), f"floor {_percent(utility['floor'])}")


def audit_level(level: str, figures: Mapping[str, Any]) -> AuditLevel:
    """One level, in words and numbers."""
    share, interval = figures["share"], figures["interval"]
    low, value, high = (0.0, 0.0, 0.0) if share is None else (_clipped(interval[0]), _clipped(share), _clipped(interval[1]))
    membership = "auc" in figures
    rates = figures["auc"] if membership else figures["recovered"]
    shown = [(role, f"{rates[role]:.2f}" if membership else _percent(rates[role])) for role in SERIES if rates.get(role) is not None]
    clean, control = figures["clean"], figures.get("control") or {}
    controls = [("asked plainly", _percent(clean.get("audited")))] if not membership else []
    controls += [("retained people", _percent(control["audited"]))] if control.get("audited") is not None else []
    controls += [("guessing", _percent(figures["chance"]))] if figures["chance"] and not membership else []
    controls += [("answers as audited", _percent(figures["agreement"]))] if "agreement" in figures else []
    return AuditLevel(
        level,
        figures["facts"],
        figures["status"],
        figures["reason"],
        "" if share is None else f"{share:.2f}",
        "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        (value, low, high),
        tuple(shown),
        tuple(controls),
    )


def leakage(results: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """By model: part of the forget rows that was taught, and part of the facts about other people that came back."""
    levels = results["attacks"].get("relearn", {}).get("levels", {})
    curves: dict[str, list[tuple[float, float]]] = {}
    for role in SERIES:
        points = [(float(level.removesuffix(" %")) / 100, each["recovered"].get(role)) for level, each in levels.items()]
        start = [(0.0, each["clean"][role]) for each in levels.values() if each["clean"].get(role) is not None][:1]
        if found := [(x, y) for x, y in points if y is not None]:
            curves[role] = [*start, *found]
    return curves


def modality(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[tuple[str, int, str]]]]:
    """Attack, level, and for questions with a picture and without: how many facts, and the share."""
    for name, attack in results["attacks"].items():
        for level, figures in attack["levels"].items():
            parts = figures.get("modality") or {}
            cells = [(kind, parts[kind]["facts"], parts[kind]["share"]) for kind in ("image", "text") if kind in parts]
            if cells:
                yield name, level, [(kind, facts, "" if share is None else f"{share:.2f}") for kind, facts, share in cells]


def _clipped(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f}\u00a0%"
