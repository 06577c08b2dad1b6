"""Audits of few people: p values worked out by hand, and a person's request from rows to verdict."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.attacks.people import WORLD, material, rows
from tests.attacks.test_contract import QUICK
from tests.shams.filters import Filter
from vgid.attacks import ATTACKS, Material
from vgid.attacks.asking import names_of
from vgid.attacks.base import Outcome, fact_key, split_facts
from vgid.attacks.decoys import make_decoys, with_value
from vgid.attacks.mia import under_names
from vgid.auditing.few import FactTest, by_fact, compare_facts, compare_people, is_about_few, rank_share
from vgid.auditing.figures import Share
from vgid.auditing.permutation import (
    PROFILES,
    compare_levels,
    facts_needed,
    p_values,
    profiles,
    rank_people,
    smallest_p,
    statistics,
)
from vgid.auditing.policy import Policy
from vgid.auditing.run import run_attacks
from vgid.auditing.verdict import Evidence, Verdict, join, judge
from vgid.data.example import STRANGER, Example, subject_key
from vgid.evaluation.statistics import Interval
from vgid.models.loading import LoadedModel, load_model
from vgid.report.audit import audit_table
from vgid.report.audit_page import render_audit
from vgid.synthetic.tiny import tiny_path


def scores(*facts: list[float]) -> dict[str, Any]:
    return {f"fact {number}": np.array(each, dtype=float) for number, each in enumerate(facts)}


def sizes(given: dict[str, Any]) -> dict[str, int]:
    return {fact: len(each) for fact, each in given.items()}


def test_all_profiles_where_there_are_few_else_drawn_ones() -> None:
    every = profiles([2, 3], seed=0)
    assert every[0].tolist() == [0, 0] and sorted(map(tuple, every.tolist())) == [(a, b) for a in range(2) for b in range(3)]
    drawn = profiles([64] * 8, seed=0)
    assert drawn.shape == (PROFILES, 8) and not drawn[0].any() and drawn.max() == 63
    assert np.array_equal(drawn, profiles([64] * 8, seed=0)) and not np.array_equal(drawn, profiles([64] * 8, seed=1))


@pytest.mark.parametrize(
    ("facts", "p"),
    [
        (([1, 0, 0], [1, 0, 0]), 1 / 9),  # of the nine profiles only the truth is found twice
        (([1, 0, 0], [0, 0, 0]), 1 / 3),  # found in one of three values
        (([1, 0, 0], [0, 1, 0]), 5 / 9),  # a decoy is found for the other fact: 1 - 2/3 * 2/3
        (([0, 0, 0], [0, 0, 0]), 1.0),
        (([1, 1, 1], [1, 1, 1]), 1.0),  # whoever is asked about, everything is found
        (([0.5, 0.25, 1.0],), 2 / 3),
    ],
)
def test_the_p_of_a_level(facts: tuple[list[float], ...], p: float) -> None:
    given = scores(*facts)
    drawn = profiles([len(each) for each in facts], seed=0)
    assert p_values(statistics(list(given.values()), drawn))[0] == pytest.approx(p)
    assert compare_levels({"a": given}, sizes(given), 0.05, seed=0)["a"].p == pytest.approx(p)


def test_the_smallest_p_of_several_levels() -> None:
    first, second = scores([1, 0, 0], [0, 0, 0]), scores([0, 0, 0], [1, 0, 0])
    same = compare_levels({"a": first, "b": first}, sizes(first), 0.05, seed=0)
    assert same["a"].adjusted == pytest.approx(1 / 3), "two levels that say the same are one"
    apart = compare_levels({"a": first, "b": second}, sizes(first), 0.05, seed=0)
    assert apart["a"].p == pytest.approx(1 / 3)
    assert apart["a"].adjusted == pytest.approx(5 / 9)  # profiles that hold the truth of either fact


def test_models_that_never_knew_are_seldom_flagged() -> None:
    """Scores that have nothing to do with the truth: p of the smallest p over three levels is at most 0.05 in about one case of twenty."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(300):
        levels = {name: scores(*rng.random((3, 8)).tolist()) for name in "abc"}
        alarms += min(each.adjusted for each in compare_levels(levels, sizes(levels["a"]), 0.05, seed=0).values()) <= 0.05
    assert 3 <= alarms <= 30  # 15 expected, with a standard deviation of 3.8


def test_what_would_have_been_detected() -> None:
    silent = scores(*[[0] * 10] * 3)
    [found] = compare_levels({"a": silent}, sizes(silent), 0.05, seed=0).values()
    assert found.detectable == pytest.approx(2 / 3)  # one fact: 1/10; two: 1/100
    guessing = scores(*[[0, *[1] * 9]] * 3)
    [found] = compare_levels({"a": guessing}, sizes(guessing), 0.05, seed=0).values()
    assert found.detectable is None, "all values are found, so that none of them says anything"


def test_how_many_facts_are_needed() -> None:
    assert smallest_p([3, 3]) == pytest.approx(1 / 9) and smallest_p([64] * 9) == 1 / PROFILES and smallest_p([]) == 1.0
    assert facts_needed([3, 3], 0.05) == 3  # 1/9 is too large, 1/27 is not
    assert facts_needed([20], 0.05) == 1 and facts_needed([64], 0.01) == 2 and facts_needed([], 0.05) == 0 == facts_needed([1], 0.05)


def test_rank_among_people_counts_both_sides() -> None:
    others = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    found = rank_people({"above": scores([10, *others]), "below": scores([0, *others]), "middle": scores([5.5, *others])})
    assert {name: each.p for name, each in found.items()} == pytest.approx({"above": 0.2, "below": 0.2, "middle": 1.0})


def test_facts_are_means_of_their_rows() -> None:
    given = material(1, 1).forget  # name, two facts by picture, and one of them by name
    assert len(given) == 4 and len({fact_key(row) for row in given}) == 3
    values = {row.id: float(number) for number, row in enumerate(given)}
    assert list(by_fact(values, given).values()) == [0.0, 2.0, 2.0]  # rows 1 and 3 ask for the same fact
    nameless = [replace(row, subject=None) for row in given]
    assert len({fact_key(row) for row in nameless}) == 3


def test_halves_of_facts_are_fitted_and_scored_in_turn() -> None:
    given = material(1, 1).forget
    halves = split_facts(given, seed=0)
    assert len(halves) == 2 and halves[0] == halves[1][::-1]
    for fitted, scored in halves:
        assert fitted and scored and not {fact_key(row) for row in fitted} & {fact_key(row) for row in scored}
        assert len(fitted) + len(scored) == len(given)
    assert split_facts(given[:1], seed=0) == []


def test_which_audits_go_by_facts() -> None:
    few, many = material(5, 1).forget, material(6, 1).forget
    assert is_about_few(few, 3, 20) and not is_about_few(many, 3, 20) and is_about_few(many, 3, 25)


EVIDENCE = {"facts": 8, "people": 1, "known": 1.0, "power": 1.0}
TEST = FactTest(p=0.5, adjusted=0.6, base=0.001, detectable=0.25, smallest=0.001, needed=1)


@pytest.mark.parametrize(
    ("share", "test", "changed", "verdict"),
    [
        (0.0, {}, {}, Verdict("pass")),
        (0.4, {"adjusted": 0.05}, {}, Verdict("fail", "recovered more than allowed")),
        (0.4, {"adjusted": 0.06}, {}, Verdict("pass")),  # so many decoys are found too
        (0.4, {"adjusted": 0.06, "p": 0.03}, {}, Verdict("inconclusive", "may be chance")),
        (0.05, {"adjusted": 0.01}, {}, Verdict("pass")),
        (-0.4, {"adjusted": 0.01}, {"two_sided": True}, Verdict("fail", "recovered more than allowed")),
        (0.0, {"base": 0.2}, {}, Verdict("inconclusive", "no power")),
        (0.9, {"smallest": 0.1, "needed": 2}, {}, Verdict("inconclusive", "too few facts: 2 would do")),
        (0.9, {"smallest": 1.0, "needed": 0}, {}, Verdict("inconclusive", "too few facts: no other values to compare with")),
        (0.0, {}, {"agreement": 0.5}, Verdict("inconclusive", "answers are not the audited model's")),
        (0.0, {}, {"known": 0.1}, Verdict("inconclusive", "never known")),
        (None, {}, {}, Verdict("inconclusive", "no room")),
    ],
)
def test_a_level_of_an_audit_by_facts(share: float | None, test: dict[str, Any], changed: dict[str, Any], verdict: Verdict) -> None:
    policy = Policy(attacks={"prefill": {}})
    measured = None if share is None else Share(share, Interval(share - 0.1, share + 0.1))
    evidence = Evidence(**{**EVIDENCE, **changed}, share=measured, test=TEST._replace(**test))
    assert judge(evidence, 0.1, policy, utility=1.0) == verdict
    if verdict.status == "pass":
        assert judge(evidence, 0.1, policy, utility=0.5) == Verdict("inconclusive", "utility below floor")


def test_levels_with_too_few_facts_do_not_decide() -> None:
    few = Verdict("inconclusive", "too few facts: 2 would do")
    assert join({"a": Verdict("pass"), "b": few}) == Verdict("pass") and join({"b": few}).status == "inconclusive"


def unasked(asked: Any) -> list[str]:
    raise AssertionError("the base need not be asked")


def person(facts: int = 3, others: int = 4) -> Material:
    return replace(material(1, others, facts=facts), unseen=())


def test_decoys_are_the_values_of_others_as_often_as_they_occur() -> None:
    given = person(others=8)
    decoys = make_decoys(given, unasked, count=8)
    for row in given.forget[1:]:
        theirs = [peer.keywords[0] for peer in given.peers(row)]
        assert sorted(each.keywords[0] for each in decoys[row.id]) == sorted(theirs)
        assert all(each.answer == row.answer.replace(row.keywords[0], each.keywords[0]) for each in decoys[row.id])
        assert all((each.id, each.question, each.images) == (row.id, row.question, row.images) for each in decoys[row.id])
    pictured, named = given.forget[1], given.forget[3]
    assert fact_key(pictured) == fact_key(named)
    assert [each.keywords for each in decoys[pictured.id]] == [each.keywords for each in decoys[named.id]]
    refused = replace(given, retain=[replace(row, tags=(*row.tags, STRANGER)) for row in given.retain])
    assert make_decoys(refused, lambda asked: [], count=8)[pictured.id] == []


def test_names_and_numbers_are_invented_where_there_are_too_few() -> None:
    given = person(others=2)
    name = given.forget[0]
    invented = make_decoys(given, lambda asked: [], count=40)[name.id]
    assert len(invented) == 40 and all(len(each.keywords[0].split()) == 2 and each.keywords[0].istitle() for each in invented)
    phone = Example("p", "Which number does Anna Keller have?", "It is 030-4417.", subject="s", keywords=("030-4417",))
    decoys = make_decoys(Material([phone], []), lambda asked: [], count=5)["p"]
    assert len({each.keywords[0] for each in decoys} - {"030-4417"}) == 5
    for each in decoys:
        assert re.fullmatch(r"\d{3}-\d{4}", each.keywords[0]) and each.answer == f"It is {each.keywords[0]}."
    others = [replace(phone, id=f"p{k}", subject=f"s{k}", answer=f"It is 030-{k}{k}00.", keywords=(f"030-{k}{k}00",)) for k in (1, 2, 3)]
    alike = make_decoys(Material([phone], others), lambda asked: [], count=20)["p"]
    assert len(alike) == 20 and all(re.fullmatch(r"030-\d{4}", each.keywords[0]) for each in alike), "all have the same code"


def test_other_values_are_what_the_base_says_about_people_it_never_met() -> None:
    given = person(others=1)
    job = given.forget[1]
    asked: list[Example] = []

    def say(questions: Any) -> list[str]:
        asked.extend(questions)
        texts = ["baker.", "", "nurse, I think.", "one of those people who do a great many things."]
        return [texts[number % 4] for number in range(len(questions))]

    decoys = make_decoys(given, say, count=10)[job.id]
    assert [each.keywords[0] for each in decoys[1:5]] == ["baker", "nurse", "baker", "nurse"] and len(decoys) == 10
    own = names_of(given.forget)[job.subject or ""]
    assert asked and not any(each.images or own in each.question or job.keywords[0] in each.question for each in asked)


def test_a_decoy_of_a_whole_answer() -> None:
    row = Example("a", "What is she known for?", "She founded a school in 1990.", subject="s")
    assert with_value(row, row, "She wrote a book.") == replace(row, answer="She wrote a book.", keywords=())


def test_people_with_invented_names_have_the_same_answers() -> None:
    given = person()
    versions = under_names(given.forget[1], given, 5)
    name = names_of(given.forget)[given.forget[1].subject or ""]
    assert len(versions) == 6 and name in versions[0].question and not any(name in each.question for each in versions[1:])
    assert {each.answer for each in versions} == {given.forget[1].answer} and not any(each.images for each in versions)
    assert len({each.id for each in versions}) == len({each.question for each in versions}) == 6
    assert under_names(given.forget[0], given, 5) == [], "the name is what is asked"
    about_work, about_it_by_name = (under_names(given.forget[place], given, 5) for place in (1, 3))
    words = [set(each.question.split()) - set(versions[0].question.split()) for each in about_work[1:]]
    assert all(found & set(each.question.split()) for found, each in zip(words, about_it_by_name[1:], strict=True)), "the same people"


def test_tests_of_outcomes() -> None:
    given = person()
    known = replace(given, decoys=make_decoys(given, lambda asked: [], count=3))
    found = Outcome({row.id: 1.0 for row in known.forget}, {}, decoys={id: [0.0] * len(each) for id, each in known.decoys.items()})
    none = replace(found, forget=dict.fromkeys(found.forget, 0.0))
    [test] = compare_facts({("prefill", ""): none}, {("prefill", ""): found}, known.forget, known, 0.05).values()
    assert test.p == test.adjusted == 1.0 and test.base == test.smallest == pytest.approx(1 / 64) and test.needed == 3
    people = Outcome({known.forget[1].id: 9.0}, {}, decoys={known.forget[1].id: [1.0, 2.0, 3.0]})
    [rank] = compare_people({("mia", "loss"): people}, {}, known.forget).values()
    assert rank.p == pytest.approx(0.5) and rank.base == 1.0
    share = rank_share(people, known.forget, seed=0)
    assert share is not None and share.value == 1.0 and rank_share(none, [], seed=0) is None


def knowing() -> LoadedModel:
    return load_model(tiny_path())


class Stranger(Filter):
    """Asks about somebody whom the model never met wherever one person is shown or named."""

    def __init__(self, processor: Any, given: Material) -> None:
        [own] = names_of(given.forget).values()
        stranger = rows(WORLD.forget[:1])
        [other] = names_of(stranger).values()
        self.shown, self.instead = {row.images for row in given.forget if row.images}, stranger[0].images
        self.names = own, other
        super().__init__(processor, lambda row: False)

    def row(self, example: Example, *args: Any, **options: Any) -> Any:
        own, other = self.names
        images = self.instead if example.images in self.shown else example.images
        return super().row(replace(example, question=example.question.replace(own, other), images=images), *args, **options)


ASKING = Policy(attacks={"prefill": {}, "token_rank": {}, "mia": {"settings": {"signals": ["loss"]}}})


def test_one_person_is_forgotten_or_not() -> None:
    """The base fails; a model that treats her as somebody it never met passes. No value of hers, and no decoy, is in the results."""
    given = person(others=6)
    failed = run_attacks({"base": knowing, "audited": knowing}, given, ASKING)
    assert failed["verdict"]["status"] == "fail" and failed["unit"] == "fact"
    assert {name: each["status"] for name, each in failed["attacks"].items()} == dict.fromkeys(ASKING.attacks, "fail")

    loaded = knowing()
    forgetful = replace(loaded, asks=Stranger(loaded.processor, given))
    passed = run_attacks({"base": knowing, "audited": lambda: forgetful}, given, ASKING)
    assert passed["verdict"] == {"status": "pass", "reasons": [], "untested": []}, passed["attacks"]
    level = passed["attacks"]["prefill"]["levels"][""]
    assert level["facts"] == 3 and level["people"] == 1 and level["test"]["adjusted"] > 0.05 >= level["test"]["base"]
    for results in (failed, passed):
        text = str(results) + render_audit(results)
        decoys = make_decoys(given, lambda asked: [], count=6)
        words = {word for row in given.everything for word in row.keywords} | {each.keywords[0] for d in decoys.values() for each in d}
        assert not any(f"{word}" in text for word in words) and audit_table(results).row_count == 3


@pytest.mark.parametrize("name", ["relearn", "sua", "suffix", "probe", "quantize", "image_rephrase"])
def test_forms_for_one_person(name: str) -> None:
    """Every row is scored next to its decoys, by attacks that were fitted on other facts; a model that knows them gives them away."""
    given = person(facts=3, others=4)
    given = replace(given, decoys=make_decoys(given, lambda asked: [], count=4))
    attack = ATTACKS.get(name)
    outcomes = attack(attack.Config(**QUICK.get(name, {}))).run(knowing(), given)
    for outcome in outcomes.values():
        assert set(outcome.forget) == set(outcome.decoys) <= {row.id for row in given.forget}
        assert all(len(scores) == len(given.decoys[id]) for id, scores in outcome.decoys.items())
        assert not outcome.fitted_on & {subject_key(row) for row in given.forget}
    if name != "probe":
        assert outcomes and all(sum(each.forget.values()) / len(each.forget) >= 0.7 for each in outcomes.values())
