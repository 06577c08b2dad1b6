"""Targets worked out once are those worked out anew, wherever they are kept."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.families import FAMILIES, missing
from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.methods.base import Context, StepBatch
from vgid.methods.common.targets import Shelf, Targets
from vgid.methods.vgid.method import VGID, VGIDConfig
from vgid.models.adapters import attach_lora
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.settings import AdapterConfig


def test_a_shelf_gives_back_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf = Shelf(in_memory=100)
    things = [torch.randn(5, 3), torch.randn(4, 7).bfloat16(), torch.randn(2, 2), torch.randn(6, 6, dtype=torch.float16)]
    for key, thing in enumerate(things):
        shelf.put(key, thing)
    assert all(torch.equal(shelf.get(key), thing) and shelf.get(key).dtype == thing.dtype for key, thing in enumerate(things))
    assert shelf._file is not None and os.fstat(shelf._file.fileno()).st_size == 4 * 7 * 2 + 6 * 6 * 2
    assert not list(tmp_path.iterdir())  # the file has no name, so nothing is left behind even by a crash


def counted(encoder: Encoder, asked: list[tuple[str, ...]]) -> Any:
    def batch(examples: tuple[Example, ...]) -> Batch:
        asked.append(tuple(example.id for example in examples))
        return encoder.batch(examples)

    return batch


@pytest.mark.parametrize("in_memory", [0, 2**20])
def test_targets_are_the_bases_logits_and_asked_for_once(random_model: LoadedModel, mixed: list[Example], in_memory: int) -> None:
    asked: list[tuple[str, ...]] = []
    targets = Targets(counted(random_model.encoder, asked), mixed, in_memory)
    for examples in (mixed[:2], mixed[1:], mixed[::-1], [mixed[0], mixed[0]]):
        with torch.no_grad():
            expected = answer_logits(random_model.model, random_model.encoder.batch(examples))
        assert torch.allclose(targets.logits(random_model.model, examples), expected, atol=1e-5)
    assert asked == [("row-0", "row-1"), ("row-2", "row-3")]


def test_a_run_that_goes_on_repeats_the_passes_it_had_taken(random_model: LoadedModel, mixed: list[Example]) -> None:
    asked: list[tuple[str, ...]] = []
    targets = Targets(counted(random_model.encoder, asked), mixed)
    before = [(rows, targets.logits(random_model.model, rows)) for rows in (mixed[:2], mixed[1:3])]
    later: list[tuple[str, ...]] = []
    again = Targets(counted(random_model.encoder, later), mixed)
    again.load_state_dict(targets.state_dict())
    assert not later and {key: value.tolist() for key, value in targets.state_dict().items()} == {"counts": [2, 1], "rows": [0, 1, 2]}
    # `row-1` alone would do, but it was in a pass with `row-0`; `row-3` is new and gets a pass of its own.
    found = again.logits(random_model.model, [mixed[1], mixed[3]])
    assert later == [("row-0", "row-1"), ("row-3",)]
    assert torch.equal(found, targets.logits(random_model.model, [mixed[1], mixed[3]]))
    assert all(torch.equal(again.logits(random_model.model, rows), value) for rows, value in before)
    assert again.state_dict()["counts"].tolist() == [2, 1, 1] and again.state_dict()["rows"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["Aya-Vision", "Gemma-3"])
def test_what_a_family_does_behind_its_head_is_kept(name: str, tmp_path: Path, mixed: list[Example]) -> None:
    family = next(row for row in FAMILIES if str(row) == name)
    if missing(family):
        pytest.skip(f"{family} needs {', '.join(missing(family))}")
    family.save(tmp_path)
    loaded = load_model(tmp_path)
    targets = Targets(lambda examples: loaded.encoder.batch(examples), mixed)
    with torch.no_grad():
        expected = answer_logits(loaded.model, loaded.encoder.batch(mixed))
    for _ in range(2):
        assert torch.allclose(targets.logits(loaded.model, mixed), expected, atol=1e-5)


@pytest.mark.parametrize("retain", ["kl", "both"])
def test_reused_targets_give_the_same_loss_and_gradients(random_model: LoadedModel, mixed: list[Example], retain: str) -> None:
    forget, keep = tuple(mixed[:2]), tuple(mixed[2:])
    model = attach_lora(random_model.model, AdapterConfig(init="gaussian"), seed=0).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    config = VGIDConfig(
        redraw=False,
        retain_loss=retain,
        answers=("recorded", "teacher"),
        hidden_state_weight=0.0,
        guess_penalty=0.0,
        adversary=None,  # type: ignore[arg-type]
        replay=None,  # narrow updates begin from an adapter that has not been trained
    )
    method = VGID(config)
    method.prepare(model, Context(random_model.encoder, forget, keep, 5, torch.device("cpu")))
    runs = []
    for step in (0, 2, 1, 3):  # the second of each pair takes what the first left
        model.zero_grad()
        loss = method.loss(model, StepBatch(step, forget, keep)).total
        loss.backward()
        runs.append((loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    for (first, slow), (again, fast) in (runs[:2], runs[2:]):
        assert again == pytest.approx(first, abs=1e-6) and all(torch.allclose(fast[name], slow[name], atol=1e-6) for name in slow)
    # The plain way, with nothing kept.
    plain = VGID(config)
    plain.prepare(model, method.context)
    plain._target = lambda base, examples, step, answers: answer_logits(base, plain.teacher_batch(examples, 0, answers))  # type: ignore[method-assign]
    assert plain.loss(model, StepBatch(2, forget, keep)).total.item() == pytest.approx(runs[0][0], abs=1e-6)


def test_noise_drawn_anew_is_never_reused(random_model: LoadedModel, mixed: list[Example]) -> None:
    model = attach_lora(random_model.model, AdapterConfig(), seed=0).eval()
    method = VGID(VGIDConfig(answers=("recorded",)))
    method.prepare(model, Context(random_model.encoder, mixed, (), 5, torch.device("cpu")))
    one, two = (method.loss(model, StepBatch(step, tuple(mixed), ())).parts["forget"].item() for step in (0, 1))
    assert one != two
