"""A deletion record (schema `vgid.record/1`) as a page, and the words of a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgid.artifacts import write_text_atomic
from vgid.outcome import FAILED, what_is_lost
from vgid.report.matrix import MARKS, decisive
from vgid.report.rendering import check_schema, render_template
from vgid.report.training import training_figures
from vgid.report.words import flatten, model_name, percent

SCHEMA = "vgid.record/1"
HEADLINES = {
    "pass": "Evidence of removal under {tests}",
    "fail": "Failed: no evidence of removal",
    "inconclusive": "The audit was inconclusive: no evidence of removal",
}
"""The conclusion in a sentence, by status; `{tests}` says how many attacks were passed."""
SUMMARIES = {
    "pass": "The new model no longer gives the facts when it is asked for them, and the attempts listed below did not bring them back. "
    "This is evidence that they are gone, not proof.",
    "fail": "What was to be removed, or a part of it, can still be got out of the new model, or too much else was lost. "
    "It should not be used.",
    "inconclusive": "The tests could not tell whether the facts are gone. "
    "Until they can, the new model should not be taken for one that has forgotten.",
}
"""The conclusion for readers without the field's words, by status."""
DAMAGED = "Failed: too much else was lost"
"""The headline for a model that passed the tests of removal and lost more of what should stay than allowed."""
RESULTS = {
    "pass": "did not bring facts back",
    "fail": "brought facts back",
    "inconclusive": "cannot tell",
    "untested": "says nothing about this model",
}
"""The result of an attack in the same words."""
EXACT = {"pass": "Exact: trained again without the rows", "inconclusive": "Trained again without the rows, but look at the figures"}
"""The headline for a model that was trained again from a base before the rows."""
EXACT_SUMMARIES = {
    "pass": "The new model was not unlearned but trained again without the rows, from a base that, as was stated, never saw them. "
    "What it still gets right about them, it guesses.",
    "inconclusive": "The new model was trained again without the rows, but a figure below is not as expected. "
    "Look at what to do next before it is used.",
}
"""The summary for such a model."""
EVIDENCE = {
    True: "This is evidence of removal under the tests below; stronger ones may show more.",
    False: "This is not evidence of removal.",
}
"""What a model card says about the audit, by whether it was passed."""


class RecordLevel(NamedTuple):
    """A level of an attack as it is shown; numbers are empty where they were not measured.

    Attributes:
        level: name of the level; empty where an attack has only one.
        facts: number of facts.
        base: rate of the model before.
        after: rate of the audited model.
        retain: rate on retained people.
        share: recovered share.
        interval: its 95 % interval.
        status: `pass`, `fail` or `inconclusive`.
        reason: the reason for it.
    """

    level: str
    facts: int
    base: str
    after: str
    retain: str
    share: str
    interval: str
    status: str
    reason: str


class Tried(NamedTuple):
    """An attack for readers without the field's words.

    Attributes:
        what: what was tried.
        name: name of the attack.
        before: facts that it gets out of the model before, in percent.
        after: facts that it gets out of the new model, in percent.
        heat: the same as a colour, in percent of the strongest one.
        status: `pass`, `fail`, `inconclusive` or `untested`.
        result: the result in words.
        reason: why nothing can be said; empty where something can.
    """

    what: str
    name: str
    before: str
    after: str
    heat: int
    status: str
    result: str
    reason: str


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the page of a record, whole or not at all.

    Raises:
        DataError: the record is not of schema `vgid.record/1`.
        OutputError: the page cannot be written.
    """
    write_text_atomic(path, render_record(record))


def render_record(record: Mapping[str, Any]) -> str:
    """Render the page of a record; everything in it is escaped.

    Raises:
        DataError: the record is not of schema `vgid.record/1`.
    """
    check_schema(record, SCHEMA, "this record")
    verification = record["verification"]
    headline, summary = _conclusion(record)
    return render_template(
        "record.html.j2",
        record=record,
        headline=headline,
        summary=summary,
        lost=_lost(verification["outcome"]),
        tried=list(_tried(verification)),
        marks=MARKS,
        people=max(len(record["request"]["subjects"]), 1),
        minutes=max(1, round(sum(record["procedure"]["seconds"].values()) / 60)),
        attacks={name: list(_levels(each)) for name, each in verification["attacks"].items()},
        evaluation=list(_evaluation(verification["evaluation"])),
        models=list(dict.fromkeys(model for each in verification["evaluation"].values() for model in each)),
        training=training_figures(record["procedure"].get("curves") or {}),
        settings=list(flatten(record["procedure"]["config"])),
        policy=list(flatten(verification["policy"])),
        number=_number,
        percent=percent,
    )


def _conclusion(record: Mapping[str, Any]) -> tuple[str, str]:
    """Headline and summary."""
    verification, status = record["verification"], record["conclusion"]["status"]
    if record.get("exact"):
        return EXACT[status], EXACT_SUMMARIES[status]
    if verification["outcome"]["status"] == "damaged" and verification["status"] == "pass":
        lost = _lost(verification["outcome"])
        return DAMAGED, f"The new model no longer gives the facts when it is asked for them, but it lost {lost}. It should not be used."
    passed = sum(each["status"] == "pass" for each in verification["attacks"].values())
    return HEADLINES[status].format(tests="one test" if passed == 1 else f"{passed} tests"), SUMMARIES[status]


def _lost(outcome: Mapping[str, Any]) -> str:
    """What the model lost beside what it was to forget; "" where nothing was held out to tell."""
    return "" if outcome.get("aside_lost") is None else what_is_lost(outcome)


def _tried(verification: Mapping[str, Any]) -> Iterator[Tried]:
    """What was tried, without attacks that do not apply; the figures are those of the level that decided."""
    for name, attack in verification["attacks"].items():
        level = decisive(attack)
        if not level:
            continue
        status = "untested" if name in verification["untested"] else attack["status"]
        rates = level["rates"]
        reason = (attack["reason"] or "").partition(":")[0] if status in ("inconclusive", "untested") else ""
        membership = level["control"] == {}  # its rates are areas under a curve, not shares of facts
        before, after = (None if membership else rates.get(role) for role in ("base", "audited"))
        old, new = ("" if rate is None else percent(rate, 0) for rate in (before, after))
        yield Tried(attack.get("tries") or name, name, old, new, round(100 * (after or 0)), status, RESULTS[status], reason)


def _levels(attack: Mapping[str, Any]) -> Iterator[RecordLevel]:
    for name, level in attack["levels"].items():
        rates, control = level["rates"], level["control"]
        interval = "" if level["interval"] is None else "{:.2f} to {:.2f}".format(*level["interval"])
        shares = _number(rates.get("base")), _number(rates.get("audited")), _number(control.get("audited"))
        yield RecordLevel(name, level["facts"], *shares, _number(level["share"]), interval, level["status"], level["reason"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _evaluation(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """For each split its name, number of questions, and accuracy with interval by model."""
    for name, models in splits.items():
        ends = {model: "{:.1f}\u2013{:.1f}".format(*(100 * end for end in each["accuracy_ci"])) for model, each in models.items()}
        cells = {model: f"{percent(each['accuracy'])} ({ends[model]})" for model, each in models.items()}
        yield name, max(each["n"] for each in models.values()), cells


def card_text(audit: Mapping[str, Any], results: Mapping[str, Any], method: str, people: int) -> str:
    """Write a model card: counts and figures, nothing about whom or what was forgotten.

    Args:
        audit: results of the audit, schema `vgid.audit/1`.
        results: results of the evaluation, schema `vgid.results/1`; its outcome with what the training run lost of held-out rows.
        method: name of the method.
        people: number of forgotten people; 0 where it is not known.

    Returns:
        Markdown.
    """
    verdict, utility, outcome = audit["verdict"], audit["utility"], results.get("outcome", {})
    failed = outcome.get("status") in FAILED
    models = list(dict.fromkeys(model for each in results["splits"].values() for model in each))
    accuracy = [(name, cells) for name, _, cells in _evaluation(results["splits"]) if name in ("forget", "retain")]
    lines = [
        "# A model after unlearning",
        "",
        f"This checkpoint was made from another by unlearning ({method}, with vgid). The request was about "
        f"{people or 'an unknown number of'} {'person' if people == 1 else 'people'}; this card does not say whom or what.",
        "",
        *([_failed(outcome), ""] if failed else []),
        f"Audit: **{verdict['status']}**, profile {audit['profile']}. {EVIDENCE[verdict['status'] == 'pass' and not failed]}"
        + (f" Reasons: {'; '.join(verdict['reasons'])}." if verdict["reasons"] else ""),
        "",
        "| attack | access | allowed recovered share | largest recovered share | status |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {each['access']} | {each['most']:.2f} | {_largest(each)} | {each['status']} |"
            for name, each in audit["attacks"].items()
        ),
        "",
        f"Utility: {_number(utility['ratio']) or 'unknown'} of what the model before answered on the retain set "
        f"(floor {utility['floor']:.2f}).",
        "",
        "| questions | " + " | ".join(map(model_name, models)) + " |",
        "|---|" + "---|" * len(models),
        *(f"| {name} | " + " | ".join(cells.get(model, "") for model in models) + " |" for name, cells in accuracy),
        "",
        "Accuracy with 95 % intervals over people.",
        "",
    ]
    return "\n".join(lines)


def _failed(outcome: Mapping[str, Any]) -> str:
    """Why a run failed that forgot too little or lost too much."""
    text = f"Result: **{outcome['status']}**. Asked plainly, {outcome['still_answered']:.0%} of the known rows are answered."
    if outcome["status"] != "damaged":
        return text
    return f"{text} Lost beside it: {what_is_lost(outcome)}."


def _largest(attack: Mapping[str, Any]) -> str:
    shares = [level["share"] for level in attack["levels"].values() if level["share"] is not None]
    return f"{max(shares):.2f}" if shares else "not measured"
