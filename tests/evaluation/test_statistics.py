"""Statistics against closed forms, and on degenerate input."""

import math

import numpy as np
import pytest

from vgid.errors import DataError
from vgid.evaluation.statistics import (
    GroupedValues,
    bootstrap_ci,
    bootstrap_means,
    bootstrap_samples,
    combined_ci,
    ks_two_sample,
    percentiles,
)


def test_bootstrap_draws_people_not_questions() -> None:
    """Two people, one all right and one all wrong: a draw's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.

    So the middle 95 % is [0, 1]. Drawing the 200 questions one by one would give about 0.5 +- 0.07.
    """
    interval = bootstrap_ci([1.0] * 100 + [0.0] * 100, ["a"] * 100 + ["b"] * 100, seed=0)
    assert interval == (0.0, 1.0)
    # The middle 40 % hold only draws of one of each.
    assert bootstrap_ci([1.0, 0.0], ["a", "b"], confidence=0.4, seed=0) == (0.5, 0.5)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    """400 people with one answer each, half right: 0.5 +- 1.96 * sqrt(0.25 / 400) = 0.5 +- 0.049."""
    interval = bootstrap_ci([0.0, 1.0] * 200, [str(i) for i in range(400)], seed=1)
    assert interval.low == pytest.approx(0.451, abs=0.006)
    assert interval.high == pytest.approx(0.549, abs=0.006)


def test_bootstrap_weighs_people_by_their_questions() -> None:
    # Every draw has a mean between 3/4 of "a" alone and 0 of "b" alone, and most hold both: (3 + 0) / (4 + 1).
    assert bootstrap_ci([1, 1, 1, 0, 0], list("aaaab"), confidence=0.4, seed=0) == pytest.approx((0.6, 0.6))


def test_bootstrap_is_repeatable_and_does_not_depend_on_order() -> None:
    values, people = [0.0, 1.0, 0.5, 0.25, 1.0, 0.0], list("aabbcd")
    order = np.random.default_rng(0).permutation(6)
    shuffled = bootstrap_ci([values[i] for i in order], [people[i] for i in order], seed=3)
    assert bootstrap_ci(values, people, seed=3) == bootstrap_ci(values, people, seed=3) == pytest.approx(shuffled)
    assert bootstrap_ci(values, people, seed=3) != bootstrap_ci(values, people, seed=4, draws=50)


@pytest.mark.parametrize(
    ("values", "people", "expected"),
    [
        ([0.25], ["a"], 0.25),
        ([0.0, 1.0], ["a", "a"], 0.5),
        ([1.0] * 5, list("abcde"), 1.0),
        ([0.0] * 3, list("abc"), 0.0),
    ],
)
def test_bootstrap_without_spread_is_the_mean(values: list[float], people: list[str], expected: float) -> None:
    assert bootstrap_ci(values, people, seed=0) == (expected, expected)


@pytest.mark.parametrize(
    ("values", "people", "options", "message"),
    [
        ([], [], {}, "must not be empty"),
        ([1.0, math.nan], ["a", "b"], {}, "must be finite"),
        ([math.inf], ["a"], {}, "must be finite"),
        ([1.0, 2.0], ["a"], {}, "every value needs a group"),
        ([1.0], ["a"], {"confidence": 1.0}, "0 < confidence < 1"),
        ([1.0], ["a"], {"draws": 0}, "draws >= 1"),
    ],
)
def test_bootstrap_refuses(values: list[float], people: list[str], options: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        bootstrap_ci(values, people, seed=0, **options)  # type: ignore[arg-type]


def test_ks_of_separated_samples() -> None:
    """3 against 3 without overlap: distance 1; of C(6, 3) = 20 equally likely orders 2 are as extreme: p = 0.1."""
    assert ks_two_sample([1, 2, 3], [4, 5, 6]) == pytest.approx((1.0, 0.1))


def test_ks_of_half_overlapping_samples() -> None:
    # F_a jumps to 1 at 2; F_b is 1/2 there: distance 1/2. For 2 against 2 every one of the 6 orders reaches 1/2.
    assert ks_two_sample([1, 2], [2, 3]) == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]), ([5.0], [5.0]), ([0.0] * 4, [0.0] * 9)])
def test_ks_of_equal_samples(a: list[float], b: list[float]) -> None:
    assert ks_two_sample(a, b) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([], [1.0], "first sample must not be empty"), ([1.0], [math.nan], "second sample must be finite")],
)
def test_ks_refuses(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ks_two_sample(a, b)


def test_the_same_seed_draws_the_same_people() -> None:
    groups = ["a", "a", "b", "c"]
    values, others = [1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]
    first, second = (bootstrap_means(x, groups, draws=20, seed=3) for x in (values, others))
    assert np.allclose(first * 10, second) and percentiles(first) == bootstrap_ci(values, groups, draws=20, seed=3)


def test_samples_hold_whole_people() -> None:
    groups = ["a", "b", "a", "c"]
    samples = list(bootstrap_samples(groups, draws=10, seed=0))
    assert len(samples) == 10
    for places in samples:
        counts = np.bincount(places, minlength=4)
        assert counts[0] == counts[2] and counts[[0, 1, 3]].sum() == 3
    with pytest.raises(DataError, match="every value needs a group"):
        next(bootstrap_samples([], draws=1, seed=0))


def test_combined_figures_draw_the_same_people_within_a_set() -> None:
    groups = ["a", "b", "c"]
    one, other = GroupedValues([0.0, 0.5, 1.0], groups, "x"), GroupedValues([1.0, 0.5, 0.0], groups, "x")
    # What one gains the other loses, if both see the same people: the sum never moves.
    value, interval = combined_ci([one, other], sum, seed=0)
    assert value == pytest.approx(2 * 0.5) and interval == pytest.approx((1.0, 1.0))
    apart = combined_ci([one, GroupedValues(other.values, groups, "y")], sum, seed=0)[1]
    assert apart.low < 0.9 and apart.high > 1.1
    alone = combined_ci([one], lambda means: means[0], seed=0)
    assert alone[0] == pytest.approx(0.5) and alone[1] == percentiles(bootstrap_means(one.values, groups, seed=[0, 2363233923]))
    with pytest.raises(DataError, match="a combined result needs parts"):
        combined_ci([], sum, seed=0)
