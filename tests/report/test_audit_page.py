"""The audit's page: right in the numbers, escaped, and nothing in it but figures and settings."""

import re
from typing import Any

import pytest

from vgid.errors import DataError
from vgid.report.audit_page import audit_level, headline, leakage, modality, render_audit


def level(share: float | None = 0.5, status: str = "fail", **changed: Any) -> dict[str, Any]:
    figures = {
        "recovered": {"base": 1.0, "audited": 0.5, "retrained": 0.0},
        "control": {"base": 1.0, "audited": 0.9, "retrained": 1.0},
        "facts": 48,
        "people": 6,
        "chance": 0.0,
        "share": share,
        "interval": None if share is None else [share - 0.1, share + 0.2],
        "clean": {"base": 1.0, "audited": 0.02, "retrained": 0.0},
        "modality": {"image": {"facts": 30, "share": 0.4, "interval": [0.3, 0.5]}, "text": {"facts": 18, "share": None, "interval": None}},
        "status": status,
        "reason": "recovered more than allowed" if status == "fail" else "",
    }
    return figures | changed


def attack(levels: dict[str, Any], status: str, required: bool = True) -> dict[str, Any]:
    fixed = {"access": "weights", "finds": "what <b>hides</b>", "budget": {"steps": 20}, "most": 0.1, "seconds": {"base": 1.0}}
    return {**fixed, "required": required, "status": status, "reason": "does not apply", "levels": levels}


def results(**changed: Any) -> dict[str, Any]:
    later = level(0.75, recovered={"base": 1.0, "audited": 0.75, "retrained": 0.05})
    signal = level(0.0, "pass", auc={"base": 0.9, "audited": 0.61}, tpr={"base": 0.5, "audited": 0.1})
    attacks = {
        "relearn": attack({"10 %": level(), "50 %": later}, "fail"),
        "figstep": attack({}, "inconclusive"),
        "mia": attack(
            {"loss": {key: value for key, value in signal.items() if key not in ("recovered", "control", "modality")}}, "pass", False
        ),
    }
    return {
        "schema": "vgid.audit/1",
        "profile": "quick",
        "seed": 0,
        "versions": {"torch": "2.13.0"},
        "policy": {"utility_floor": 0.9, "attacks": {}},
        "knowledge": {"asked": 96, "people": 6, "known": 94, "clean": {"base": 0.98, "audited": 0.02, "retrained": 0.0}},
        "utility": {"asked": 48, "ratio": 0.99, "interval": [0.97, 1.0], "floor": 0.9},
        "attacks": attacks,
        "verdict": {"status": "fail", "reasons": ["relearn"], "untested": ["figstep"]},
        "models": {"base": "models/<base>", "audited": "out/merged"},
        **changed,
    }


def test_the_page_needs_nothing_and_escapes_everything() -> None:
    page = render_audit(results())
    assert page.count("<script") == 1 and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "&lt;base&gt;" in page and "what &lt;b&gt;hides&lt;/b&gt;" in page
    assert page.count("<svg") == 1 and page.count('<tr role="row" class="group">') == 3
    text = re.sub(r"<[^>]+>", " ", page)
    assert (
        "Forgotten facts can be recovered" in text
        and "does not apply" in text
        and "Attacks that say nothing about this model: figstep" in text
    )
    with pytest.raises(DataError, match="these results cannot be shown"):
        render_audit({"schema": "vgid.results/1"})


def test_a_line_of_facts_and_one_of_membership() -> None:
    found = audit_level("10 %", level(chance=0.25, agreement=0.5))
    assert (found.share, found.interval, found.facts) == ("0.50", "0.40 to 0.70", 48) and found.bar == pytest.approx((50, 40, 70))
    assert found.rates == (("audited", "50\u00a0%"), ("base", "100\u00a0%"), ("retrained", "0\u00a0%"))
    assert dict(found.controls) == {
        "clean question": "2\u00a0%",
        "retained people": "90\u00a0%",
        "guessing": "25\u00a0%",
        "same answer as audited": "50\u00a0%",
    }
    signal = audit_level("loss", results()["attacks"]["mia"]["levels"]["loss"])
    assert signal.rates == (("audited", "0.61"), ("base", "0.90")) and signal.controls == ()
    assert audit_level("", level(None, "inconclusive")).share == ""


def test_leakage_starts_with_the_plain_questions() -> None:
    assert leakage(results()) == {
        "audited": [(0.0, 0.02), (0.1, 0.5), (0.5, 0.75)],
        "base": [(0.0, 1.0), (0.1, 1.0), (0.5, 1.0)],
        "retrained": [(0.0, 0.0), (0.1, 0.0), (0.5, 0.05)],
    }
    assert leakage(results(attacks={})) == {} and "<svg" not in render_audit(results(attacks={}))


def test_modalities() -> None:
    assert next(iter(modality(results()))) == ("relearn", "10 %", [("image", 30, "0.40"), ("text", 18, "")])


def test_a_broken_model_is_not_called_leaking() -> None:
    given = results(attacks={}, verdict={"status": "fail", "reasons": ["utility 0.30 below 0.90"], "untested": []})
    given["utility"]["ratio"] = 0.3
    assert headline(given) == "The model lost too much of what it should have kept: 30\u00a0% is left"
    assert "came back" not in headline(results(verdict={"status": "inconclusive", "reasons": [], "untested": []}))
