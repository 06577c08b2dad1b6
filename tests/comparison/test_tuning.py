"""The search: the same number of trials, workers that share them, and rows that are never reported."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from vgid.comparison.tuning import search
from vgid.comparison.tuning_rows import split_off_validation
from vgid.data.example import STRANGER
from vgid.demo.data import DemoData
from vgid.errors import RunError
from vgid.methods.base import Range
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import evaluation_splits, perception_rows, stranger_rows, training_rows
from vgid.synthetic.tiny import IMAGE_SIZE

SPACE = {"training.learning_rate": Range(0.1, 10.0, log=True), "method.answers": (("recorded",), ("teacher",))}
FIRST = {"training.learning_rate": 1.0, "method.answers": ["recorded"]}


def silent(done: int, total: int) -> None: ...


class Trials:
    """Scores settings: the nearer the rate is to 2 the better, and `teacher` is better than `recorded`."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, settings: Mapping[str, Any]) -> float:
        self.seen.append(settings)
        return float(1 / (1 + abs(settings["training.learning_rate"] - 2)) + (settings["method.answers"] == ["teacher"]))


@pytest.fixture(autouse=True)
def _optuna() -> None:
    pytest.importorskip("optuna")


def test_the_first_trial_is_the_default_and_the_best_is_taken(tmp_path: Path) -> None:
    trial = Trials()
    found = search(tmp_path / "log", "a", SPACE, FIRST, 5, trial, silent)
    assert trial.seen[0] == FIRST and len(trial.seen) == 5 == found.trials
    assert all(0.1 <= each["training.learning_rate"] <= 10 for each in trial.seen)
    best = max(trial.seen, key=Trials())
    assert found.settings == best and found.composite == Trials()(best)


def test_trials_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    whole, first, second = Trials(), Trials(), Trials()
    search(tmp_path / "whole", "a", SPACE, FIRST, 4, whole, silent)
    search(tmp_path / "parts", "a", SPACE, FIRST, 2, first, silent)
    found = search(tmp_path / "parts", "a", SPACE, FIRST, 4, second, silent)
    assert first.seen + second.seen == whole.seen and found.trials == 4
    fewer = Trials()
    assert search(tmp_path / "parts", "a", SPACE, FIRST, 2, fewer, silent).settings in first.seen and not fewer.seen
    other = Trials()
    search(tmp_path / "parts", "b", SPACE, FIRST, 1, other, silent)
    assert len(other.seen) == 1


def test_a_killed_trial_does_not_count(tmp_path: Path) -> None:
    calls = []

    def killed(settings: Mapping[str, Any]) -> float:
        calls.append(settings)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "log", "a", SPACE, FIRST, 3, killed, silent)
    assert search(tmp_path / "log", "a", SPACE, FIRST, 3, killed, silent).trials == 3 and len(calls) == 4


def test_a_run_that_fails_scores_nothing(tmp_path: Path) -> None:
    def failing(settings: Mapping[str, Any]) -> float:
        if settings == FIRST:
            raise RunError("the loss is nan at step 3")
        return 0.25

    found = search(tmp_path / "log", "a", SPACE, FIRST, 2, failing, silent)
    assert found.composite == 0.25 and found.settings != FIRST


@pytest.fixture(scope="module")
def data() -> DemoData:
    camera, world = Camera(IMAGE_SIZE), World(seed=3, people=2, forget=1)
    strangers = stranger_rows(camera, world.strangers(2, "training"), world.seed)
    kept = chain(training_rows(camera, world.retain, 3), perception_rows(camera, world.retain, 8, "training", 3), strangers)
    return DemoData(list(training_rows(camera, world.forget, 3)), list(kept), [], evaluation_splits(camera, world))


def test_the_validation_rows_ask_nothing_that_is_reported(data: DemoData) -> None:
    tuning = split_off_validation(data, seed=3)
    taken = [row for rows in tuning.splits.values() for row in rows]
    reported = [row for rows in data.splits.values() for row in rows]

    def asked(rows: Any) -> set[Any]:
        return {(row.question, *(image.read() for image in row.images)) for row in rows}

    assert taken and not {row.id for row in taken} & {row.id for row in reported} and not asked(taken) & asked(reported)
    # Without this check some would have been equal: facts asked by name have ten wordings only.
    assert asked(data.forget) & asked(data.splits["forget_text"])
    assert set(tuning.splits) == {"forget", "forget_text", "retain", "retain_text", "perception"}
    assert not any(STRANGER in row.tags for row in taken)


def test_the_validation_rows_come_from_the_training_rows(data: DemoData) -> None:
    tuning = split_off_validation(data, seed=3)
    taken = {row.id for rows in tuning.splits.values() for row in rows}
    trained = {row.id for row in [*tuning.forget, *tuning.retain]}
    assert not taken & trained and taken | trained == {row.id for row in [*data.forget, *data.retain]}
    assert {row.subject for row in tuning.splits["forget"]} == {"w3-person-000"}
    assert split_off_validation(data, seed=3) == tuning and split_off_validation(data, seed=4) != tuning
