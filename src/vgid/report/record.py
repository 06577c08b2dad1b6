"""A deletion record as a page, and the words of a model card; both only read results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vgid.artifacts import write_text_atomic
from vgid.errors import DataError
from vgid.report.html import environment
from vgid.report.view import flatten
from vgid.report.words import model_name, percent

SCHEMA = "vgid.record/1"
HEADLINES = {
    "pass": "Evidence of removal under {tests} tests",
    "fail": "The audit failed: no evidence of removal",
    "inconclusive": "The audit decided nothing: no evidence of removal",
}

EVIDENCE = {
    True: "This is evidence of removal under the tests below; stronger ones may show more.",
    False: "This is no evidence of removal.",
}


class RecordLevel(NamedTuple):
    """A level of an attack, as it is shown."""

    level: str
    facts: int
    base: str
    after: str
    retain: str
    share: str
    interval: str
    status: str
    reason: str


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record as one page that needs nothing else.

    Raises:
        DataError: the record is of another schema.
        OutputError: the page cannot be written.
    """
    write_text_atomic(path, render_record(record))


def render_record(record: Mapping[str, Any]) -> str:
    """The page as text; everything in it is escaped.

    Raises:
        DataError: the record is of another schema.
    """
    if record.get("schema") != SCHEMA:
        raise DataError("this record cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(record.get("schema")))
    verification = record["verification"]
    passed = sum(each["status"] == "pass" for each in verification["attacks"].values())
    page: str = (
        environment()
        .get_template("record.html.j2")
        .render(
            record=record,
            headline=HEADLINES[record["conclusion"]["status"]].format(tests=passed),
            attacks={name: list(_rows(each)) for name, each in verification["attacks"].items()},
            evaluation=list(_evaluation(verification["evaluation"])),
            models=list(dict.fromkeys(model for each in verification["evaluation"].values() for model in each)),
            settings=list(flatten(record["procedure"]["config"])),
            policy=list(flatten(verification["policy"])),
            number=_number,
        )
    )
    return page


def _rows(attack: Mapping[str, Any]) -> Iterator[RecordLevel]:
    for name, level in attack["levels"].items():
        rates, control = level["rates"], level["control"]
        interval = "" if level["interval"] is None else "{:.2f} to {:.2f}".format(*level["interval"])
        shares = _number(rates.get("base")), _number(rates.get("audited")), _number(control.get("audited"))
        yield RecordLevel(name, level["facts"], *shares, _number(level["share"]), interval, level["status"], level["reason"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _evaluation(splits: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int, dict[str, str]]]:
    for name, models in splits.items():
        cells = {model: f"{percent(each['accuracy'])} ({_interval(each['accuracy_ci'])})" for model, each in models.items()}
        yield name, max(each["n"] for each in models.values()), cells


def _interval(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.1f}\u2013{100 * ends[1]:.1f}"


# -- the model card -------------------------------------------------------------------------------------------------------


def card_text(audit: Mapping[str, Any], results: Mapping[str, Any], method: str, people: int) -> str:
    """What a model card says: counts and figures, nothing of whom or what."""
    verdict, utility = audit["verdict"], audit["utility"]
    lines = [
        "# A model that was made to forget",
        "",
        f"This checkpoint was made from another by unlearning ({method}, with vgid). The request was about "
        f"{people or 'an unknown number of'} {'person' if people == 1 else 'people'}; whom and what, it does not say.",
        "",
        f"Audit: **{verdict['status']}**, profile {audit['profile']}. {EVIDENCE[verdict['status'] == 'pass']}"
        + (f" Reasons: {'; '.join(verdict['reasons'])}." if verdict["reasons"] else ""),
        "",
        "| attack | access | most that may come back | most that came back | status |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {each['access']} | {each['most']:.2f} | {_worst(each)} | {each['status']} |"
            for name, each in audit["attacks"].items()
        ),
        "",
        f"Utility: {_number(utility['ratio']) or 'unknown'} of what the model before answered on the retain set "
        f"(floor {utility['floor']:.2f}).",
        "",
        "| questions | " + " | ".join(model_name(name) for name in _models(results)) + " |",
        "|---|" + "---|" * len(_models(results)),
        *_card_rows(results),
        "",
        "Accuracy with 95 % intervals over people.",
        "",
    ]
    return "\n".join(lines)


def _worst(attack: Mapping[str, Any]) -> str:
    shares = [level["share"] for level in attack["levels"].values() if level["share"] is not None]
    return f"{max(shares):.2f}" if shares else "not measured"


def _models(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(model for each in results["splits"].values() for model in each))


def _card_rows(results: Mapping[str, Any]) -> Iterator[str]:
    for name, _, cells in _evaluation(results["splits"]):
        if name in ("forget", "retain"):
            yield f"| {name} | " + " | ".join(cells.get(model, "") for model in _models(results)) + " |"
