"""The audit's page: right in the numbers, escaped, and nothing in it but figures and settings."""

import re
from typing import Any

import pytest

from vgid.errors import DataError
from vgid.report.audit_page import audit_level, headline, leakage, modality, next_steps, recovered_facts, render_audit
from vgid.report.matrix import decisive, matrix


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
        "facts": [
            {"person": 1, "rows": [1], "recovered": {}},
            {"person": 1, "rows": [2], "recovered": {"relearn": ["50 %"]}},
            {"person": 2, "rows": [4, 7], "recovered": {"plain question": [""], "relearn": ["10 %", "50 %"]}},
        ],
        "verdict": {"status": "fail", "reasons": ["relearn"], "untested": ["figstep"]},
        "models": {"base": "models/<base>", "audited": "out/merged"},
        **changed,
    }


def test_the_page_needs_nothing_and_escapes_everything() -> None:
    page = render_audit(results())
    assert page.count("<script") == 1 and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "&lt;base&gt;" in page and "what &lt;b&gt;hides&lt;/b&gt;" in page
    assert page.count("<svg") == 1 and page.count('<tr role="row" class="group" id="attack-') == 3
    text = re.sub(r"<[^>]+>", " ", page)
    assert "Forgotten facts can be recovered" in text and "does not apply" in text
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


def test_the_matrix_shows_the_level_that_decided() -> None:
    given = results()["attacks"]
    relearn, quiet = given["relearn"], level(0.9, "inconclusive", power=0.02, reason="interval reaches chance: 5 %")
    relearn["levels"] |= {"5 %": quiet}
    relearn["levels"]["50 %"] |= {"power": 0.97}
    assert decisive(relearn)["share"] == 0.75 and decisive(given["figstep"]) == {}
    rows = {row.name: row for each in matrix(given, ["figstep"]).values() for row in each}
    shown = rows["relearn"]
    assert (shown.status, shown.share, shown.heat, shown.power, shown.strength) == ("fail", "0.75", 75, "0.97", 97)
    assert (rows["figstep"].status, rows["figstep"].reason, rows["figstep"].share) == ("untested", "does not apply", "")
    # An AUC of 0.9 is 0.8 of the way from chance to certainty.
    assert (rows["mia"].power, rows["mia"].share, rows["mia"].required) == ("0.80", "0.00", False)
    below = matrix({"probe": attack({"": level(-0.2, "pass")}, "pass")}, [])["With its weights"][0]
    assert (below.share, below.heat) == ("\u22120.20", 0)


def test_facts_that_came_back_are_numbers() -> None:
    found = recovered_facts(results())
    assert found is not None and [(each.rows, each.person) for each in found] == [([4, 7], 2), ([2], 1)]
    assert found[0].attacks == (("plain question", ""), ("relearn", "10 %, 50 %"))
    page = render_audit(results())
    assert "2 of 3 known facts by any attack" in page and "4, 7" in page
    older = {name: each for name, each in results().items() if name != "facts"}
    assert recovered_facts(older) is None and "Which facts came back" not in render_audit(older)


def test_what_to_do_next_follows_from_the_verdict() -> None:
    failed = " ".join(next_steps(results()))
    assert "rows that ask as relearn did" in failed and "--profile full" not in failed and "--reference" not in failed
    dropped = results(attacks={"served": attack({"": level()}, "fail")})
    assert any("--served URL" in step for step in next_steps(dropped)) and not any("Do not deploy" in step for step in next_steps(dropped))
    few = results(attacks={"prefill": attack({}, "inconclusive") | {"reason": "too few facts: 8 would do"}})
    few |= {"verdict": {"status": "inconclusive", "reasons": [], "untested": []}}
    few["knowledge"]["clean"].pop("retrained")
    told = list(next_steps(few))
    assert told[0].startswith("Give more rows") and "--profile full" in told[1] and "--reference" in told[2]
    passed = results(attacks={}, verdict={"status": "pass", "reasons": [], "untested": []})
    assert next(iter(next_steps(passed))).startswith("Deploy this model")
