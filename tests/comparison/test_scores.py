"""The composite, the front and the bootstrap, against numbers derived by hand."""

import itertools

import numpy as np
import pytest

from vgid.comparison.bootstrap import Draws, SeedAnswers, SplitAnswers, difference, score_draws
from vgid.comparison.scores import pareto, score
from vgid.errors import DataError


def test_the_composite_takes_the_worst_of_either_side() -> None:
    """Forgetting: 1 - (0.25 - 0.05) = 0.8 by text, 1 by picture, where guessing is as good. Utility: 0.6 / 0.8 = 0.75; perception
    improved, which counts as 1. Harmonic mean: 2 * 0.8 * 0.75 / 1.55 = 24 / 31."""
    base = {"forget": 1.0, "forget_text": 1.0, "retain": 0.8, "perception": 0.5, "strangers": 0.9}
    retrained = {"forget": 0.1, "forget_text": 0.05, "retain": 0.9, "perception": 0.5, "strangers": 0.9}
    found = score({"forget": 0.1, "forget_text": 0.25, "retain": 0.6, "perception": 0.6, "strangers": 0.0}, base, retrained)
    assert found.forgetting == pytest.approx(0.8) and found.utility == pytest.approx(0.75)
    assert found.composite == pytest.approx(24 / 31)
    assert found.forgetting_by == pytest.approx({"forget": 1.0, "forget_text": 0.8})
    assert found.utility_by == pytest.approx({"retain": 0.75, "perception": 1.0})


def test_a_model_that_forgets_everything_scores_nothing() -> None:
    found = score({"forget": 0.0, "retain": 0.0}, {"forget": 1.0, "retain": 1.0}, {"forget": 0.0, "retain": 1.0})
    assert (found.composite, found.forgetting, found.utility) == (0.0, 1.0, 0.0)


def test_where_nothing_was_known_nothing_is_lost() -> None:
    assert score({"forget": 0.0, "retain": 0.0}, {"forget": 1.0, "retain": 0.0}, {"forget": 0.0, "retain": 0.0}).utility == 1.0


def test_a_score_needs_both_sides() -> None:
    with pytest.raises(DataError, match="a score needs forget and retain splits"):
        score({"forget": 0.0}, {"forget": 1.0}, {"forget": 0.0})


def test_the_front_holds_what_nothing_beats() -> None:
    """c is beaten by b in both, d by a in utility at the same forgetting; of two equal points both stay."""
    points = {"a": (0.5, 1.0), "b": (0.9, 0.8), "c": (0.8, 0.7), "d": (0.5, 0.9), "e": (1.0, 0.1), "f": (1.0, 0.1)}
    assert pareto(points) == ["a", "b", "e", "f"]
    assert pareto({}) == []


def seed_answers(forget: list[float], retain: list[float]) -> SeedAnswers:
    """A model beside a base that knows all, and a reference that knows the retained people only; one question per person."""
    f, r = [f"f{n}" for n in range(len(forget))], [f"r{n}" for n in range(len(retain))]

    def splits(forgotten: list[float], kept: list[float]) -> dict[str, SplitAnswers]:
        return {"forget": SplitAnswers(f, forgotten), "retain": SplitAnswers(r, kept)}

    return SeedAnswers(splits(forget, retain), splits([1.0] * len(f), [1.0] * len(r)), splits([0.0] * len(f), [1.0] * len(r)))


def test_draws_have_the_distribution_of_all_draws() -> None:
    """Two people each, one of them answered: a mean is 0, 1/2, 1 with probability 1/4, 1/2, 1/4, and both sides are independent.
    So the composite is 1 (1/16), 2/3 (1/2 or 1 against 1/2, ...), 1/2 or 0; all nine cases are computed here."""
    chance = {0.0: 0.25, 0.5: 0.5, 1.0: 0.25}
    expected = sum(
        p * q * (2 * (1 - f) * u / (1 - f + u) if (1 - f + u) and u and f < 1 else 0.0)
        for (f, p), (u, q) in itertools.product(chance.items(), chance.items())
    )
    drawn = score_draws([seed_answers([1.0, 0.0], [1.0, 0.0])], draws=40000)
    assert drawn.composite.mean() == pytest.approx(expected, abs=0.01)
    assert {share: float(np.mean(drawn.forgetting == 1 - share)) for share in chance} == pytest.approx(chance, abs=0.01)
    assert {share: float(np.mean(drawn.utility == share)) for share in chance} == pytest.approx(chance, abs=0.01)


def test_seeds_are_drawn_too() -> None:
    """A seed of composite 1 and one of 0, no spread within either: means 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    drawn = score_draws([seed_answers([0.0, 0.0], [1.0, 1.0]), seed_answers([1.0, 1.0], [1.0, 1.0])], draws=20000)
    assert {each: float(np.mean(drawn.composite == each)) for each in (0.0, 0.5, 1.0)} == pytest.approx(
        {0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.012
    )


def test_pairs_see_the_same_people() -> None:
    """The same answers differ by nothing in any draw; one person more, and the loser never wins."""
    one, same, worse = (score_draws([seed_answers(forget, [1.0] * 4)]) for forget in ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]))
    nothing = difference(one, same)
    assert nothing == (0.0, (0.0, 0.0), 1.0)
    found = difference(one, worse)
    assert (one.composite >= worse.composite).all() and found.mean > 0 and found.interval.low == 0
    # The person in whom they differ is missed by (2/3)^3 of the draws, in which both are equal; so are they with both other answers wrong.
    equal = float(np.mean(one.composite == worse.composite))
    assert equal == pytest.approx(8 / 27, abs=0.03) and found.p_value == pytest.approx((1 + 2000 * equal) / 2001)


def test_p_values_count_the_draws_without_a_lead() -> None:
    """Leads of 0.1, 0.2, 0 and -0.1 in four draws: two without, so p = 3 / 5."""
    one, other = np.array([0.6, 0.7, 0.5, 0.4]), np.full(4, 0.5)
    found = difference(Draws(one, one, one), Draws(other, other, other))
    assert found.p_value == pytest.approx(3 / 5) and found.mean == pytest.approx(0.05)


def test_no_runs_no_bootstrap() -> None:
    with pytest.raises(DataError, match="needs runs"):
        score_draws([])
