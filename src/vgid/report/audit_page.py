"""An audit as one page: verdict, every attack beside its controls, leakage over relearning budgets, shares by modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from vgid.report import plots, view
from vgid.report.rendering import check_schema, render_template
from vgid.report.words import flatten

SCHEMA = "vgid.audit/1"
SERIES = {"audited": "unlearned", "base": "base", "retrained": "retrained"}
"""Models in the order in which they are shown, each with the name of its colour."""
HEADLINES = {
    "pass": "No required attack recovered more than the policy allows",
    "fail": "Forgotten facts can be recovered",
    "inconclusive": "The audit could not decide",
}
"""The verdict in a sentence, by status."""
MARKS = {"pass": "\u2713", "fail": "\u2715", "inconclusive": "?"}
"""A sign for each status."""


class AuditLevel(NamedTuple):
    """A level of an attack as it is shown.

    Attributes:
        level: name of the level; empty where an attack has only one.
        facts: number of facts.
        status: `pass`, `fail` or `inconclusive`.
        reason: the reason for it.
        share: recovered share; empty where there is none.
        interval: its 95 % interval.
        bar: share and both ends of its interval, in percent of the bar.
        rates: labels and rates of the models.
        controls: labels and values of the controls.
    """

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
    """Render the page of an audit; everything in it is escaped, and nothing of what was asked or answered is in it.

    Raises:
        DataError: the results are not of schema `vgid.audit/1`.
    """
    check_schema(results, SCHEMA)
    curves = leakage(results)
    return render_template(
        "audit.html.j2",
        results=results,
        headline=headline(results),
        tiles=list(tiles(results)),
        attacks={name: (each, [audit_level(*level) for level in each["levels"].items()]) for name, each in results["attacks"].items()},
        marks=MARKS,
        series=SERIES,
        leakage=Markup(plots.leakage({SERIES[role]: points for role, points in curves.items()})) if curves else None,
        leaking=list(curves),
        modality=list(modality(results)),
        settings=list(flatten({"policy": {k: v for k, v in results["policy"].items() if k != "attacks"}})),
        budgets={name: list(flatten(each["budget"])) for name, each in results["attacks"].items()},
    )


def headline(results: Mapping[str, Any]) -> str:
    """The verdict in a sentence, which tells a model that was damaged from one that leaks."""
    verdict, utility = results["verdict"], results["utility"]
    failed = [name for name, each in results["attacks"].items() if each["required"] and each["status"] == "fail"]
    if verdict["status"] == "fail" and not failed:
        return f"The model lost too much of what it should have kept: {_percent(utility['ratio'])} is left"
    return HEADLINES[verdict["status"]]


def tiles(results: Mapping[str, Any]) -> Iterator[view.Tile]:
    """The figures at the top of the page."""
    knowledge, utility, attacks = results["knowledge"], results["utility"], results["attacks"].values()
    counts = {status: sum(each["status"] == status for each in attacks) for status in MARKS}
    worst = max((level["share"] for each in attacks for level in each["levels"].values() if level["status"] == "fail"), default=None)
    known = f"{knowledge['known']} of {knowledge['asked']} facts were known"
    yield view.Tile("Facts, clean questions", _percent(knowledge["clean"]["base"]), _percent(knowledge["clean"]["audited"]), known)
    others = f"{counts['pass']} passed, {counts['inconclusive']} inconclusive"
    yield view.Tile("Failed attacks", None, str(counts["fail"]), others)
    yield view.Tile("Largest recovered share", None, "none" if worst is None else f"{worst:.2f}", "among failed attacks")
    yield view.Tile("Retained facts", None, _percent(utility["ratio"]), f"floor {_percent(utility['floor'])}")


def audit_level(level: str, figures: Mapping[str, Any]) -> AuditLevel:
    """One level of an attack, in words and numbers."""

    def clipped(share: float) -> float:
        return 100 * min(1.0, max(0.0, share))

    share, interval = figures["share"], figures["interval"]
    low, value, high = (0.0, 0.0, 0.0) if share is None else (clipped(interval[0]), clipped(share), clipped(interval[1]))
    membership = "auc" in figures
    rates = figures["auc"] if membership else figures["recovered"]
    shown = [(role, f"{rates[role]:.2f}" if membership else _percent(rates[role])) for role in SERIES if rates.get(role) is not None]
    clean, control = figures["clean"], figures.get("control") or {}
    controls = [("clean question", _percent(clean.get("audited")))] if not membership else []
    controls += [("retained people", _percent(control["audited"]))] if control.get("audited") is not None else []
    controls += [("guessing", _percent(figures["chance"]))] if figures["chance"] and not membership else []
    test = figures.get("test")
    controls += [("p over all levels", f"{test['adjusted']:.3f}"), ("p of the base", f"{test['base']:.3f}")] if test else []
    controls += [("smallest share seen", f"{test['detectable']:.2f}")] if test and test["detectable"] is not None else []
    controls += [("same answer as audited", _percent(figures["agreement"]))] if "agreement" in figures else []
    return AuditLevel(
        level=level,
        facts=figures["facts"],
        status=figures["status"],
        reason=figures["reason"],
        share="" if share is None else f"{share:.2f}",
        interval="" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
        bar=(value, low, high),
        rates=tuple(shown),
        controls=tuple(controls),
    )


def leakage(results: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Curves of the attack `relearn`, for the plot.

    Returns:
        By role of the model, points of (share of the forget rows that were trained on, share of the facts about other forgotten people
        that were recovered); the first point is that of the clean questions.
    """
    levels = results["attacks"].get("relearn", {}).get("levels", {})
    curves: dict[str, list[tuple[float, float]]] = {}
    for role in SERIES:
        points = [(float(level.removesuffix(" %")) / 100, each["recovered"].get(role)) for level, each in levels.items()]
        start = [(0.0, each["clean"][role]) for each in levels.values() if each["clean"].get(role) is not None][:1]
        if found := [(x, y) for x, y in points if y is not None]:
            curves[role] = [*start, *found]
    return curves


def modality(results: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[tuple[str, int, str]]]]:
    """Recovered shares for questions with a picture (`image`) and without (`text`).

    Yields:
        Attack, level, and for each modality its name, number of facts and share; the share is empty where there is no room for one.
    """
    for name, attack in results["attacks"].items():
        for level, figures in attack["levels"].items():
            parts = figures.get("modality") or {}
            cells = [(kind, parts[kind]["facts"], parts[kind]["share"]) for kind in ("image", "text") if kind in parts]
            if cells:
                yield name, level, [(kind, facts, "" if share is None else f"{share:.2f}") for kind, facts, share in cells]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f}\u00a0%"
