"""Which fact came back by which attack: numbers alone, by hand."""

from vgid.attacks import Material, Outcome
from vgid.auditing.facts import PLAIN, facts_found
from vgid.auditing.scores import ModelScores
from vgid.data.example import Example


def row(name: str, subject: str, keyword: str) -> Example:
    return Example(name, f"question {name}", f"It is {keyword}.", subject=subject, keywords=(keyword,))


A1, A2, A3 = row("a1", "anna", "Oslo"), row("a2", "anna", "nurse"), row("a3", "anna", "Oslo")
B1, C1, D1 = row("b1", "ben", "Rome"), row("c1", "cleo", "Bonn"), row("d1", "dan", "Kiel")


def test_facts_are_numbered_as_in_the_forget_set() -> None:
    """Rows 1 and 3 ask for one fact; the base does not know row 2; row 4 (Ben) came back by nothing; row 5 was not asked (a sample)."""
    material = Material(forget=[A3, A1, B1, A2, D1], retain=[], pool=[A1, A2, A3, B1, C1, D1])
    base = {"a1": 1.0, "a2": 0.0, "a3": 1.0, "b1": 1.0, "d1": 1.0}
    attacks = {
        "relearn": {
            "10 %": Outcome({"a3": 0.0, "d1": 0.0}, {}),
            "50 %": Outcome({"a1": 0.0, "a3": 1.0, "b1": 0.0, "a2": 1.0}, {}),
        },
        "suffix": {},
    }
    scores = {
        "base": ModelScores(base, {}, {}),
        "audited": ModelScores({"a1": 0.0, "a2": 1.0, "a3": 0.0, "b1": 0.0, "d1": 1.0}, attacks, {}),
    }
    assert facts_found(scores, list(attacks), [], material) == [
        {"person": 1, "rows": [1, 3], "recovered": {"relearn": ["50 %"]}},
        {"person": 2, "rows": [4], "recovered": {}},
        {"person": 3, "rows": [6], "recovered": {PLAIN: [""]}},
    ]
    scores["base"] = ModelScores(dict.fromkeys(base, 0.0), {}, {})
    assert facts_found(scores, list(attacks), [], material) == []


def test_a_share_of_a_fact_counts_from_a_half() -> None:
    """Attacks that score traces give a little to every fact; the reference's own shares count in the same way."""
    material = Material(forget=[B1, C1, D1], retain=[])
    everything = dict.fromkeys(("b1", "c1", "d1"), 1.0)

    def scored(b1: float, c1: float, d1: float) -> ModelScores:
        return ModelScores(dict.fromkeys(everything, 0.0), {"patching": {"": Outcome({"b1": b1, "c1": c1, "d1": d1}, {})}}, {})

    scores = {"base": ModelScores(everything, {}, {}), "audited": scored(0.17, 0.5, 0.9)}
    assert [each["recovered"] for each in facts_found(scores, ["patching"], [], material)] == [{}, {"patching": [""]}, {"patching": [""]}]
    scores["retrained"] = scored(0.0, 0.4, 0.6)
    assert [each["recovered"] for each in facts_found(scores, ["patching"], [], material)] == [{}, {"patching": [""]}, {}]


def test_what_can_be_guessed_did_not_come_back() -> None:
    """The reference gives Rome under the attack and Kiel plainly; a right choice among options counts where it failed."""
    material = Material(forget=[B1, C1, D1], retain=[])
    everything = dict.fromkeys(("b1", "c1", "d1"), 1.0)
    asked = {"prefill": {"": Outcome({"b1": 1.0, "c1": 1.0, "d1": 0.0}, {})}, "probe": {"layer 1": Outcome(everything, {}, chance=0.25)}}
    reference = {"prefill": {"": Outcome({"b1": 1.0, "c1": 0.0, "d1": 0.0}, {})}, "probe": {}}
    scores = {
        "base": ModelScores(everything, {}, {}),
        "audited": ModelScores({"b1": 0.0, "c1": 0.0, "d1": 1.0}, asked, {}),
        "retrained": ModelScores({"b1": 0.0, "c1": 0.0, "d1": 1.0}, reference, {}),
    }
    found = [each["recovered"] for each in facts_found(scores, list(asked), [], material)]
    assert found == [{}, {"prefill": [""]}, {}]
    found = [each["recovered"] for each in facts_found(scores, list(asked), [("probe", "layer 1")], material)]
    assert found == [{"probe": ["layer 1"]}, {"prefill": [""], "probe": ["layer 1"]}, {"probe": ["layer 1"]}]
