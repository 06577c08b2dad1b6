"""What holds for every metric on a model that knows the facts and one that knows nothing, and formulas worked out by hand."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch

from tests.attacks.people import material
from tests.conftest import example
from vgid.attacks.base import Material
from vgid.attacks.relearn import RelearnOtherConfig
from vgid.attacks.scores import TokenLosses
from vgid.errors import ConfigError, DataError
from vgid.metrics import METRICS, Reading
from vgid.metrics.base import above
from vgid.metrics.extraction_strength import extracted
from vgid.metrics.gibberish import is_gibberish
from vgid.metrics.measure import list_metrics, measure
from vgid.metrics.privleak import leak
from vgid.metrics.truth_ratio import truth_share
from vgid.models.loading import LoadedModel

HIGH = {"key_fact", "rouge_l", "bleu", "probability", "truth_ratio", "extraction_strength", "exact_memorisation"}
"""Metrics on which a model that knows everything is near the top, and one that knows nothing far below."""


@pytest.fixture(scope="module")
def readings(base: LoadedModel, ignorant: LoadedModel, known: Material) -> tuple[Reading, Reading]:
    """A model that knows the rows and one that does not, both compared with the latter."""
    reference = Reading(ignorant, known)
    return Reading(base, known, reference), Reading(ignorant, known, reference)


@pytest.fixture(scope="module")
def values(readings: tuple[Reading, Reading]) -> Iterator[Callable[[str], tuple[Mapping[str, float], ...]]]:
    """What a metric gives for both models, measured once; with a small budget."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METRICS.get("rebound"), "budget", RelearnOtherConfig(steps=2))
        yield cache(lambda name: tuple(METRICS.get(name)().run(reading) for reading in readings))


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric(name: str, readings: tuple[Reading, Reading], values: Callable[[str], tuple[Mapping[str, float], ...]]) -> None:
    metric, forget = METRICS.get(name), readings[0].material.forget
    before = {key: value.clone() for key, value in readings[0].loaded.model.state_dict().items()}
    ours, theirs = values(name)
    after = readings[0].loaded.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "a metric leaves the model as it is"
    assert set(ours) == {row.id for row in forget} and all(map(math.isfinite, ours.values()))
    high, low = (sum(each.values()) / len(each) for each in (ours, theirs))
    if name in HIGH:
        assert high >= 0.7 and high - low >= 0.3, (high, low)
    assert metric.unit and metric.reads in ("answers", "probabilities", "weights")


def test_the_reference_is_at_no_distance_from_itself(values: Callable[[str], tuple[Mapping[str, float], ...]], known: Material) -> None:
    sums = {name: [sum(each.values()) for each in values(name)] for name in ("privleak", "reference_mia", "rebound", "gibberish")}
    rows = len(known.forget)
    assert sums["privleak"][1] == pytest.approx(0)
    assert sums["reference_mia"][1] == rows / 2, "all differences are 0: ties"
    assert sums["reference_mia"][0] > 0.8 * rows
    assert sums["rebound"][0] <= 0, "nothing can come back to a model that states everything"
    assert sums["gibberish"][0] == 0


def test_readings_leave_the_end_of_the_turn_out(readings: tuple[Reading, Reading]) -> None:
    """The embedded model ends a turn with one token, which follows from the template and not from the fact."""
    reading = readings[0]
    tokenizer = reading.loaded.processor.tokenizer
    for row in reading.material.forget:
        assert tokenizer.decode(reading.tokens[row.id].tokens).strip() == row.answer


def test_without_unseen_rows_or_reference_metrics_of_membership_are_left_out(base: LoadedModel) -> None:
    given = material(forget=2, retain=2, facts=1, texts=1)
    found = measure(base, given.forget, given.retain, metrics=["key_fact", "privleak", "reference_mia"])
    assert set(found["metrics"]) == {"key_fact"} and found["left_out"] == dict.fromkeys(
        ("privleak", "reference_mia"), "needs unseen and reference"
    )
    assert found["metrics"]["key_fact"]["value"] == 1 and (found["rows"], found["people"]) == (4, 2)
    with pytest.raises(ConfigError, match="did you mean 'key_fact'"):
        measure(base, given.forget, given.retain, metrics=["keyfact"])
    with pytest.raises(DataError, match="no forget rows"):
        measure(base, [], given.retain)


@pytest.mark.parametrize(
    ("digits", "share"),
    [("1111", 1.0), ("0111", 0.75), ("1011", 0.5), ("1110", 0.0), ("0000", 0.0), ("1", 1.0), ("0", 0.0)],
)
def test_extraction_strength_by_hand(digits: str, share: float) -> None:
    """With the last wrong token at place k, k tokens have to be given: 1 - k / T."""
    assert extracted(torch.tensor([digit == "1" for digit in digits])) == share


def test_memorisation_by_hand() -> None:
    row = example(0)
    reading = Reading.__new__(Reading)
    reading.material = Material([row], [])
    tokens = torch.tensor([5, 6, 7, 8])
    reading.__dict__["tokens"] = {row.id: TokenLosses(tokens, tokens / 8, tokens / 8, torch.tensor([True, False, True, True]))}
    assert METRICS.get("exact_memorisation")().run(reading) == {row.id: 0.75}
    assert METRICS.get("extraction_strength")().run(reading) == {row.id: 0.5}
    assert METRICS.get("probability")().run(reading)[row.id] == pytest.approx(2.718281828 ** (-26 / 32))


def test_leak_and_shares_by_hand() -> None:
    assert leak(0.75, 0.5) == 50 and leak(0.25, 0.5) == -50 and leak(0.5, 0.0) == 50_000
    assert above(2, [1, 2, 3, 4]) == 0.375, "above one and level with one of four"
    assert truth_share(0.0, 0.0, 0.0) == 0.5 and truth_share(0.0, 1000.0) == 1 and truth_share(1000.0, 1000.0) == 0.5


def test_above_unseen_is_the_auc(base: LoadedModel) -> None:
    """Signals of two forget rows are 1 and 3, of two unseen rows 2 and 3: one pair of four is above, one is level."""
    rows = [example(k) for k in range(4)]
    signal = dict(zip((row.id for row in rows), (1.0, 3.0, 2.0, 3.0), strict=True))
    reading = Reading(base, Material(rows[:2], [], unseen=rows[2:]))
    shares = reading.above_unseen(lambda _, row: signal[row.id])
    assert shares == {rows[0].id: 0.0, rows[1].id: 0.75} and sum(shares.values()) / 2 == 1.5 / 4
    assert Reading(base, replace(reading.material, unseen=())).above_unseen(lambda _, row: 0.0) == {}


@pytest.mark.parametrize(
    ("text", "gibberish"),
    [
        ("This is Paula Petrov.", False),
        ("555-12-34", False),
        ("She was born in 1990.", False),
        ("1000000", False),
        ("I do not know. I do not know.", False),
        ("Das ist die Donaudampfschifffahrtsgesellschaft.", False),
        ("她住在奥斯陆。", False),
        ("", True),
        ("...", True),
        ("uuuuuuuustustust", True),
        ("no no no no", True),
        ("%%$#@! a", True),
        ("a" + "bcdefghijklmnopqrstuvwxyz" * 2, True),
    ],
)
def test_gibberish(text: str, gibberish: bool) -> None:
    assert is_gibberish(text) is gibberish


def test_lists_say_what_metrics_need() -> None:
    rows = {row["name"]: row for row in list_metrics()}
    assert set(rows) == set(METRICS) and rows["privleak"]["needs"] == ["unseen", "reference"] and all(row["about"] for row in rows.values())
