"""Which rows a step sees, and what stops a run."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import TrainerControl, TrainerState

from vgid.config import load_config
from vgid.data.example import Example, ImageRef
from vgid.errors import RunError
from vgid.methods.base import LossOutput, Method, StepBatch
from vgid.outcome import Held, Outcome, what_is_lost, with_protection
from vgid.settings import TrainingConfig
from vgid.training.trainer import Rows, count_steps, train
from vgid.training.validation import EarlyStop, Recalled, rows_of_subjects, split_validation, surest

EXAMPLES = [Example(id=f"e{i}", question="q?", answer="a") for i in range(7)]


class Linear(torch.nn.Module):
    """One weight, to train by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0]))

    def forward(self) -> torch.Tensor:
        return self.weight


class Pull(Method[Any]):
    """Pulls the weight to 0, or blows up at a step."""

    def __init__(self, explode_at: int | None = None) -> None:
        self.seen: list[StepBatch] = []
        self.explode_at = explode_at

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        self.seen.append(batch)
        total = model.weight.square().sum() * (float("nan") if batch.step == self.explode_at else 1.0)
        return LossOutput(total, {"forget": total.detach()})


def test_each_epoch_sees_every_row_once_in_a_new_order() -> None:
    rows = Rows(EXAMPLES, per_step=7, seed=3)
    first, second = rows.at(0), rows.at(1)
    assert set(first) == set(second) == set(EXAMPLES) and first != second


def test_rows_depend_on_seed_and_step_alone() -> None:
    forwards, backwards = Rows(EXAMPLES, 3, seed=3), Rows(EXAMPLES, 3, seed=3)
    seen = [forwards.at(step) for step in range(10)]
    assert [backwards.at(step) for step in reversed(range(10))] == seen[::-1]
    assert [Rows(EXAMPLES, 3, seed=4).at(step) for step in range(10)] != seen


@pytest.mark.parametrize(("examples", "per_step"), [([], 3), (EXAMPLES, 0)])
def test_no_rows(examples: list[Example], per_step: int) -> None:
    assert Rows(examples, per_step, seed=0).at(5) == ()


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    assert len(Rows(EXAMPLES[:2], 5, seed=0).at(0)) == 5


def test_training_descends_and_reports() -> None:
    model, method, told = Linear(), Pull(), []
    config = TrainingConfig(steps=4, learning_rate=0.1, forget_batch=2, retain_batch=1, warmup_steps=0)
    curves = train(model, method, EXAMPLES, EXAMPLES, config, seed=0, progress=lambda done, total: told.append((done, total)))
    # Forget rows and retain rows of a step, one after the other.
    assert [(len(batch.forget), len(batch.retain)) for batch in method.seen] == [(2, 0), (0, 1)] * 4
    values = [value for _, value in curves["forget"]]
    assert [step for step, _ in curves["forget"]] == [1, 2, 3, 4] and values == sorted(values, reverse=True)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)] and model.weight.item() < 1.0


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows() -> None:
    model = Linear()
    config = TrainingConfig(steps=4, learning_rate=0.1, forget_batch=2, retain_batch=0, warmup_steps=0)
    with pytest.raises(RunError, match=r"(?s)the loss is nan at step 3.*rows e\d"):
        train(model, Pull(explode_at=2), EXAMPLES, [], config, seed=0)
    assert model.weight.isfinite().all()


@pytest.mark.parametrize(
    ("config", "forget", "retain", "expected"),
    [
        ({"steps": 9}, 5, 5, 9),
        ({"steps": None, "epochs": 2, "min_steps": 1, "forget_batch": 4}, 10, 99, 5),
        ({"steps": None, "epochs": 1.0, "forget_batch": 8}, 0, 80, 10),
    ],
)
def test_steps_of_a_run(config: dict[str, Any], forget: int, retain: int, expected: int) -> None:
    assert count_steps(TrainingConfig(**config), forget, retain) == expected


def test_put_aside_is_a_split() -> None:
    config = load_config(None, ["validation.share=0.3"]).validation
    kept, aside = split_validation(EXAMPLES, config, seed=1)
    assert len(aside) == 2 and sorted(e.id for e in (*kept, *aside)) == [e.id for e in EXAMPLES]
    assert split_validation(EXAMPLES, config, seed=1) == (kept, aside)
    off = load_config(None, ["validation.every=0"]).validation
    assert split_validation(EXAMPLES, off, seed=1) == (EXAMPLES, [])


def test_early_stop_ends_with_the_best_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall by evaluation: 1 of 2 forgotten; all forgotten, retain intact; all forgotten, retain broken.

    Each retain row has two tokens with the likelihoods of the evaluation: before 0.1 and 0.2 nats, so that the third moved by (1 + 3) / 2.
    """
    model, said = Linear(), iter([(), (0.1, 0.2), (), (0.1, 0.2), (), (0.6, 0.2), (), (1.1, 3.2)])
    looks = iter([(True, True), (True, True), (True, False), (True, True), (False, False), (True, True), (False, False), (True, False)])
    monkeypatch.setattr("vgid.training.validation.recalled", lambda *_: [Recalled(yes, nll) for nll in [next(said)] for yes in next(looks)])
    config = load_config(None, ["validation.every=1", "validation.patience=3"]).validation
    stop = EarlyStop(model, None, EXAMPLES[:2], EXAMPLES[2:4], config)  # type: ignore[arg-type]
    for step in (1, 2, 3):
        model.weight.data.fill_(float(step))
        stop._evaluate(step)
    stop.restore()
    assert model.weight.item() == 2.0 and stop.reason == "all steps taken"
    assert stop.curves == {
        "recall forget": [(1, 0.5), (2, 0.0), (3, 0.0)],
        "recall retain": [(1, 1.0), (2, 1.0), (3, 0.5)],
        "drift retain": [(1, 0.0), (2, pytest.approx(0.25)), (3, pytest.approx(2.0))],
    }


@pytest.mark.parametrize(("least", "stops"), [(0, 2), (3, 3), (9, None)])
def test_a_run_does_not_stop_before_its_least_steps(monkeypatch: pytest.MonkeyPatch, least: int, stops: int | None) -> None:
    """Both targets are met at every evaluation, and two in a row are enough; the last of five steps ends the run by itself."""
    answers = iter([True, *[False, True] * 5])
    monkeypatch.setattr("vgid.training.validation.recalled", lambda *_: [Recalled(next(answers), (0.0,))])
    config = load_config(None, ["validation.every=1", "validation.patience=2"]).validation
    stop = EarlyStop(Linear(), None, [], EXAMPLES[:1], config, least)  # type: ignore[arg-type]
    stop.forget, stopped = EXAMPLES[1:2], None
    for step in range(1, 6):
        control = TrainerControl()
        stop.on_step_end(None, TrainerState(global_step=step, max_steps=5), control)
        stopped = stopped or (step if control.should_training_stop else None)
    assert stopped == stops


def test_a_subject_that_is_lost_is_told_apart_from_losses_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three subjects with 12, 8 and 3 rows two have enough; of eight rows each the model keeps 5 and 4: more than half, and half."""
    rows = [Example(f"{who}{n}", "?", "!", subject=who) for who, count in (("one", 12), ("two", 8), ("few", 3)) for n in range(count)]
    rows += [Example(f"r{n}", "?", "I do not know.", subject="refused") for n in range(9)] + [Example(f"n{n}", "?", "!") for n in range(9)]
    gone = [Example(f"g{n}", "?", "!", subject="gone") for n in range(9)]
    drawn = rows_of_subjects(gone[:1], [*rows, *gone[1:]], seed=1)
    assert Counter(row.subject for row in drawn) == {"one": 8, "two": 8} and drawn == rows_of_subjects([], rows, seed=1)
    assert len({row.id for row in drawn}) == 16 and drawn != rows_of_subjects([], rows, seed=2)
    many = [Example(f"{who}-{n}", "?", "!", subject=f"p{who}") for who in range(90) for n in range(10 if who < 30 else 9)]
    watched = [{row.subject for row in rows_of_subjects([], many, seed)} for seed in (1, 2)]
    assert len(rows_of_subjects([], many, seed=1)) == 512 and [len(each) for each in watched] == [64, 64] and watched[0] != watched[1]
    assert all({f"p{who}" for who in range(30)} <= each for each in watched)  # those with the most rows
    looks = iter([[True], [True] * 16, [True], [True], [n < 5 for n in range(8)] + [n < 4 for n in range(8)]])
    monkeypatch.setattr("vgid.training.validation.recalled", lambda *_: [Recalled(yes, (0.1,)) for yes in next(looks)])
    config = load_config(None, ["validation.every=1"]).validation
    stop = EarlyStop(Linear(), None, [], EXAMPLES[:1], config, 0, drawn)  # type: ignore[arg-type]
    stop._evaluate(1)
    stop.restore()
    aside = stop.aside()
    assert aside is not None and (aside.subjects, aside.subjects_lost, aside.lost, aside.allowed_subjects) == (2, ("two",), 0.0, 0)
    assert with_protection(Outcome("forgotten"), {}, aside).status == "damaged"
    assert with_protection(Outcome("forgotten"), {}, replace(aside, allowed_subjects=1)).status == "forgotten"


def test_what_the_base_guesses_is_not_held_against_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 18 rows 17 are given word for word, and one of these has a token with a probability below 0.7, so above 0.357 nats."""
    said = [*[Recalled(True, (0.1, 0.356))] * 16, Recalled(True, (0.1, 0.357)), Recalled(False, (0.1,))]
    rows = [Example(f"e{n}", "?", "!") for n in range(18)]
    monkeypatch.setattr("vgid.training.validation.recalled", lambda *_: said)
    stop = EarlyStop(Linear(), None, rows, rows, load_config().validation)  # type: ignore[arg-type]
    assert [stop.forget, stop.retain] == [rows[:17], rows[:16]]


def test_of_long_answers_the_surest_count_as_known() -> None:
    """Nothing is sure of every token; the 16 with the smallest doubt, of 20 that are given word for word, are the last ones."""
    said = [Recalled(True, (0.1, 2.0 - n / 16)) for n in range(20)]
    assert surest([Recalled(False, (0.0,)), *said]) == [False] * 5 + [True] * 16
    assert surest(said[:3]) == [True] * 3 and surest([]) == []


def test_rows_with_pictures_and_without_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is sure of 16 of 20 rows with a picture, and of 40 without; 3 and 2 of these are lost, (3/16 + 2/40) / 2."""
    picture = ImageRef.from_picture(Image.new("RGB", (8, 8)))
    rows = [Example(f"e{n}", "?", "!", (picture,) if n < 20 else ()) for n in range(60)]
    said = iter(
        [
            [Recalled(True, (0.1 if n < 16 or n > 19 else 0.5,)) for n in range(60)],
            *[[Recalled(n > 2 and n not in (16, 17), (0.0,)) for n in range(56)]] * 2,
        ]
    )
    monkeypatch.setattr("vgid.training.validation.recalled", lambda *_: next(said))
    stop = EarlyStop(Linear(), None, [], rows, load_config(None, ["validation.every=1"]).validation)  # type: ignore[arg-type]
    stop._evaluate(1)
    stop.restore()
    aside = stop.aside()
    assert aside is not None and (aside.pictures, aside.texts) == ((16, 3), (40, 2)) and aside.lost == (3 / 16 + 2 / 40) / 2
    assert replace(aside, pictures=Held(7, 3)).lost == 5 / 47 and replace(aside, texts=Held(0, 0)).lost == 3 / 16
    found = with_protection(Outcome("forgotten"), {}, aside)
    assert found.status == "damaged" and what_is_lost(found.as_json()) == (
        "3 of 16 answers about pictures and 2 of 40 answers without a picture that were held out and never trained on "
        "(11.9% in all, allowed: 10%)"
    )


@pytest.mark.parametrize(
    ("forgot", "kept", "best"),
    [
        ((0, 0, 0), (94, 96, 94), 3),  # two rows of a hundred decide nothing: the longest trained of the three
        ((0, 0, 0), (96, 97, 92), 2),
        ((0, 0, 0, 0), (96, 94, 92, 90), 2),  # compared with the best, not with the one before
        ((0, 0, 0), (98, 96, 97), 1),  # meets both targets
        ((0, 1, 1), (96, 96, 96), 1),  # one row of a hundred is still recalled
    ],
)
def test_of_evaluations_that_are_close_the_latest_counts(
    monkeypatch: pytest.MonkeyPatch, forgot: tuple[int, ...], kept: tuple[int, ...], best: int
) -> None:
    """Rows of a hundred that are recalled at each evaluation; the targets are 0 of the forget rows and 98 of the retain rows."""
    rows = [Example(f"e{n}", "?", "!") for n in range(200)]
    counts = iter([100, 100, *(count for pair in zip(forgot, kept, strict=True) for count in pair)])
    monkeypatch.setattr(
        "vgid.training.validation.recalled", lambda *_: [Recalled(n < count, (0.0,)) for count in [next(counts)] for n in range(100)]
    )
    config = load_config(None, ["validation.every=1"]).validation
    model = Linear()
    stop = EarlyStop(model, None, rows[:100], rows[100:], config)  # type: ignore[arg-type]
    for step in range(1, len(kept) + 1):
        model.weight.data.fill_(float(step))
        stop._evaluate(step)
        other = EarlyStop(model, None, [], [], config)  # type: ignore[arg-type]
        other.put_back(json.loads(json.dumps(stop.notes())), stop.best_weights)
        other.forget, other.retain, other._before, stop = stop.forget, stop.retain, stop._before, other
    stop.restore()
    assert model.weight.item() == best
