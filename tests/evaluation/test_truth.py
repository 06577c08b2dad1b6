"""Truth ratios, utility and nearness to a reference, by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import hmean, ks_2samp

from vgid.errors import DataError
from vgid.evaluation import truth
from vgid.evaluation.truth import (
    forget_truth,
    harmonic_mean,
    js_distance,
    log_truth_ratio,
    nearness,
    option_probability,
    released_log_truth_ratios,
    retain_truth,
)


def test_the_ratio_and_what_it_is_worth() -> None:
    # Losses ln 2 of the truth, ln 4 and ln 16 of errors: r = sqrt(4 * 16) / 2 = 4.
    log_ratio = log_truth_ratio(math.log(2), [math.log(4), math.log(16)])
    assert math.exp(log_ratio) == pytest.approx(4)
    assert forget_truth(log_ratio) == pytest.approx(1 / 4) and forget_truth(-log_ratio) == pytest.approx(1 / 4)
    assert retain_truth(log_ratio) == pytest.approx(3 / 4) and retain_truth(-log_ratio) == 0.0
    # Cannot tell: r = 1. Certain: no overflow.
    assert forget_truth(0.0) == 1.0 and retain_truth(0.0) == 0.0
    assert forget_truth(5000.0) == 0.0 and retain_truth(5000.0) == 1.0 and retain_truth(-5000.0) == 0.0


def test_the_released_averaging_is_over_all_questions() -> None:
    assert released_log_truth_ratios([1.0, 2.0], [[3.0, 5.0], [4.0]]) == [4.0 - 1.0, 4.0 - 2.0]
    assert [log_truth_ratio(1.0, [3.0, 5.0]), log_truth_ratio(2.0, [4.0])] == [3.0, 2.0]


@pytest.mark.parametrize("losses", [(math.nan, [1.0]), (1.0, [math.inf])])
def test_losses_must_be_finite(losses: tuple[float, list[float]]) -> None:
    for function in (log_truth_ratio, option_probability):
        with pytest.raises(DataError, match="losses must be finite"):
            function(*losses)
    with pytest.raises(DataError, match="losses must be finite"):
        released_log_truth_ratios([losses[0]], [losses[1]])


def test_wrong_answers_are_needed() -> None:
    with pytest.raises(DataError, match="at least one perturbed answer"):
        log_truth_ratio(1.0, [])
    with pytest.raises(DataError, match="at least one perturbed answer"):
        released_log_truth_ratios([1.0], [[]])


def test_probability_among_options() -> None:
    # Probabilities 1/2 against 1/4 and 1/4: half. Alone: certain.
    assert option_probability(math.log(2), [math.log(4), math.log(4)]) == pytest.approx(1 / 2)
    assert option_probability(3.0, []) == 1.0 and option_probability(2000.0, [0.0]) == pytest.approx(0.0)


def test_harmonic_mean() -> None:
    values = [0.2, 0.5, 1.0]
    assert harmonic_mean(values) == pytest.approx(3 / (5 + 2 + 1)) == pytest.approx(hmean(values))
    assert harmonic_mean([0.7]) == pytest.approx(0.7) and harmonic_mean([0.0, 1.0]) == 0.0
    for bad in ([], [-0.1], [math.nan]):
        with pytest.raises(DataError):
            harmonic_mean(bad)


def test_js_distance_by_hand_and_by_scipy() -> None:
    # Half the mass in common: entropies of (1/2, 1/2, 0), (0, 1/2, 1/2) give a divergence of 1/2 bit.
    assert js_distance([0.1, 0.5], [0.5, 0.9], bins=3) == pytest.approx(math.sqrt(0.5))
    assert js_distance([0.1], [0.9]) == 1.0 and js_distance([0.3, 0.3], [0.3]) == 0.0
    rng = np.random.default_rng(0)
    a, b = rng.beta(2, 5, 200), rng.beta(3, 3, 300)
    p, q = (np.histogram(x, bins=20, range=(0, 1))[0] for x in (a, b))
    assert js_distance(a, b) == pytest.approx(jensenshannon(p, q, base=2))
    for bad in ([], [math.nan], [1.5]):
        with pytest.raises(DataError, match=r"numbers in \[0, 1\]"):
            js_distance(bad, [0.5])


def test_nearness_is_the_ks_test_with_intervals() -> None:
    rng = np.random.default_rng(1)
    a, b = list(rng.normal(0, 1, 60)), list(rng.normal(1, 1, 60))
    people = [str(number // 3) for number in range(60)]
    near, expected = nearness(a, b, people, seed=0, draws=50), ks_2samp(a, b)
    assert (near.ks, near.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert near.ks_interval.low <= near.ks <= near.ks_interval.high
    # A ratio and its logarithm have the same order, so the test does not care.
    assert ks_2samp(np.exp(a), np.exp(b)).pvalue == pytest.approx(near.p_value)
    same = nearness([0.5] * 4, [0.5] * 4, list("aabb"), seed=0, draws=5)
    assert (same.p_value, same.ks, same.js) == (1.0, 0.0, 0.0) and same.ks_interval == (0.0, 0.0)
    one = nearness([1.0], [2.0], ["a"], seed=0, draws=5)
    assert one.ks == 1.0 and one.p_value == 1.0


def test_the_statistic_of_a_draw_is_scipys() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        a, b = rng.integers(0, 6, 20).astype(float), rng.integers(0, 6, 15).astype(float)  # with ties
        assert truth._ks_statistic(a, b) == pytest.approx(ks_2samp(a, b).statistic)


def test_without_a_reference_there_is_an_error() -> None:
    with pytest.raises(DataError, match=r"(?s)never saw the forget set.*--reference"):
        nearness([1.0], None, ["a"], seed=0)
    with pytest.raises(DataError, match="asked different questions"):
        nearness([1.0], [1.0, 2.0], ["a"], seed=0)
    with pytest.raises(DataError, match="must be finite"):
        nearness([math.nan], [1.0], ["a"], seed=0)
    with pytest.raises(DataError):
        nearness([], [], [], seed=0)
