"""An audit as one page: first a screen with verdict, matrix of attacks and what to do next; then, folded, every attack beside its controls,
facts by attack, leakage over relearning budgets, and shares by modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from vgid.report import plots, view
from vgid.report.matrix import MARKS, matrix
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
REMEDIES = {
    "adapter_scaling": "Deploy the merged model, never the adapter beside its base.",
    "served": "Find out what the server serves: vgid audit --served URL.",
    "quantize": "Deploy the precision that was audited, or unlearn with larger changes: more steps, or a higher learning rate.",
}
"""What to do about an attack that failed, where there is more to say than for all attacks."""
UNDECIDED = {
    "too few facts": "Give more rows: other questions, wordings and pictures of the same people, or raise --max-rows.",
    "never known": "Check --base: it must be the model that knew the facts before unlearning.",
    "interval reaches chance": "Ask more rows (--profile full, or --max-rows), so that the intervals become narrower.",
    "utility below floor": "Unlearn again with more rows to keep or a lower learning rate: the model is damaged.",
    "answers are not the audited model's": "Find out what the server serves: vgid audit --served URL.",
}
"""What to do about an attack that could not decide, by the beginning of its reason."""


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
        matrix=matrix(results["attacks"], results["verdict"]["untested"]),
        next_steps=list(dict.fromkeys(next_steps(results))),
        facts=recovered_facts(results),
        known=results["knowledge"]["known"],
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


def next_steps(results: Mapping[str, Any]) -> Iterator[str]:
    """What to do next, in sentences; some may occur twice."""
    verdict, utility, required = results["verdict"], results["utility"], {n: a for n, a in results["attacks"].items() if a["required"]}
    if verdict["status"] == "fail":
        if utility["ratio"] is not None and utility["ratio"] < utility["floor"]:
            yield "Unlearn again with more rows to keep (--retain) or a lower learning rate: too much else was lost."
        if failed := [name for name, each in required.items() if each["status"] == "fail"]:
            yield from (REMEDIES[name] for name in failed if name in REMEDIES)
            if others := [name for name in failed if name not in REMEDIES]:
                yield f"Do not deploy this model. Unlearn again with rows that ask as {', '.join(others)} did, or for more steps."
    elif verdict["status"] == "inconclusive":
        reasons = [
            each["reason"] for name, each in required.items() if each["status"] == "inconclusive" and name not in verdict["untested"]
        ]
        yield from (text for start, text in UNDECIDED.items() if any(reason.startswith(start) for reason in reasons))
    else:
        yield "Deploy this model, bit for bit, then check the server that offers it: vgid audit --served URL."
    if results["profile"] == "quick" and verdict["status"] != "fail":
        yield "For stronger evidence, audit again with larger budgets: --profile full."
    if "retrained" not in results["knowledge"]["clean"]:
        yield "If you can, give a model that never saw the rows (--reference): without it, right guesses count as recovered."
    yield "Audit again when the model is trained further, merged, or converted to another precision."


class RecoveredFact(NamedTuple):
    """A fact that came back, by numbers alone.

    Attributes:
        person: number of the person it is about.
        rows: numbers of its rows in the forget set.
        attacks: names of the attacks that brought it back, with their levels.
    """

    person: int
    rows: list[int]
    attacks: tuple[tuple[str, str], ...]


def recovered_facts(results: Mapping[str, Any]) -> list[RecoveredFact] | None:
    """The facts that came back, those that most attacks brought back first; None for results of a release that did not list them."""
    if "facts" not in results:
        return None
    back = sorted((each for each in results["facts"] if each["recovered"]), key=lambda each: -len(each["recovered"]))
    return [
        RecoveredFact(
            person=each["person"],
            rows=each["rows"],
            attacks=tuple((name, ", ".join(filter(None, levels))) for name, levels in each["recovered"].items()),
        )
        for each in back
    ]


def tiles(results: Mapping[str, Any]) -> Iterator[view.Tile]:
    """The figures at the top of the page."""
    knowledge, utility, attacks = results["knowledge"], results["utility"], results["attacks"].values()
    counts = {status: sum(each["status"] == status for each in attacks) for status in HEADLINES}
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
