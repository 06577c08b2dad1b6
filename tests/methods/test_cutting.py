"""Rows cut into passes: where, and that the loss and its gradient stay what they are row by row."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.methods.table import Row, forget_rows, retain_rows
from vgid.data.packing import Style
from vgid.methods.base import Context, StepBatch
from vgid.methods.cutting import Cut, bucket, of_similar_length, that_fit
from vgid.methods.engine import pass_tokens
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel
from vgid.settings import AdapterConfig, TrainingConfig
from vgid.training.automatic import MemoryPlan, chosen
from vgid.training.gradient_step import GradientStep

FORGET, RETAIN = tuple(forget_rows()), tuple(retain_rows())
STEP = StepBatch(0, FORGET, RETAIN)


def test_rows_of_similar_length_go_together() -> None:
    # All five padded to 52: of the first three 2 x 42 + 41 = 125 tokens are padding. Cut in front of the fourth, 3 x (52 - 11) are saved.
    assert of_similar_length([10, 10, 11, 50, 52], worth=123) == [range(3), range(3, 5)]
    assert of_similar_length([10, 10, 11, 50, 52], worth=124) == [range(5)]
    # Then the last two, where 2 tokens are worth a pass: 1 x (52 - 50); and 2 x (11 - 10).
    assert of_similar_length([10, 10, 11, 50, 52], worth=2) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    assert of_similar_length([10, 50], worth=None) == [range(2)] and of_similar_length([7, 7], worth=1) == [range(2)]


def test_pieces_are_as_long_as_they_may_be() -> None:
    def padded(lengths: Sequence[int]) -> int:
        return len(lengths) * max(lengths)

    assert that_fit([3, 3, 4, 5, 9], padded, 10) == [[3, 3], [4, 5], [9]]
    assert that_fit([3, 12, 3], padded, 10) == [[3], [12], [3]]  # 12 is more than may be, so it goes alone
    assert that_fit([3, 12], padded, None) == [[3, 12]] and that_fit([3], padded, 10) == [[3]] and that_fit([], padded, 10) == []


def test_lengths_are_few() -> None:
    assert [bucket(length) for length in (1, 2, 31, 32, 33, 34, 65, 700, 1024)] == [1, 2, 31, 32, 34, 34, 68, 704, 1024]
    assert all(length <= bucket(length) <= length * 17 / 16 for length in range(1, 3000))
    assert len({bucket(length) for length in range(1025, 2049)}) == 16


@pytest.mark.parametrize("packed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_any_cut_gives_the_loss_and_the_gradient_of_rows_one_by_one(random_model: LoadedModel, packed: bool) -> None:
    """VGID's default with adversary and hidden states; the slow way asks each row alone, and the base about it alone."""
    config = Row("vgid").config
    model, method = attach_lora(random_model.model, AdapterConfig(), seed=0).eval(), config.build_method()
    replayed = tuple(row.__class__(f"r{row.id}", row.question, row.answer, row.images, tags=("replay", "seen")) for row in RETAIN)
    method.prepare(model, Context(random_model.encoder, FORGET, RETAIN, 5, torch.device("cpu"), packing=Style(4) if packed else None))
    generator = torch.Generator().manual_seed(3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    step = StepBatch(0, FORGET, (*RETAIN, *replayed))

    def run(batch: StepBatch, cut: Cut) -> tuple[int, float, torch.Tensor]:
        count, total = 0, 0.0
        model.zero_grad()
        for out in method.passes(model, batch, cut):
            out.total.backward()
            count, total = count + 1, total + out.total.item()
        return count, total, torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])

    alone = [run(StepBatch(0, (row,), ()), Cut()) for row in FORGET] + [run(StepBatch(0, (), (row,)), Cut()) for row in step.retain]
    # The mean over four forget rows, and over eight retain rows of two kinds.
    loss = sum(value / (4 if number < 4 else 8) for number, (_, value, _) in enumerate(alone))
    slope = sum((grad / (4 if number < 4 else 8) for number, (_, _, grad) in enumerate(alone)), torch.zeros(()))
    counts = []
    for cut in (Cut(), Cut(worth=1), Cut(most=120), Cut(most=120, worth=4, buckets=True), Cut(most=1)):
        count, total, grad = run(step, cut)
        counts.append(count)
        assert total == pytest.approx(loss, rel=1e-5)
        assert torch.allclose(grad, slope, rtol=1e-4, atol=2e-6), cut
        sizes = pass_tokens(method.terms(step), method.machine().__class__(random_model.encoder, torch.device("cpu"), cut=cut))
        longest = max(len(random_model.encoder.row(row).text["input_ids"]) for row in (*FORGET, *step.retain))
        assert cut.most is None or max(sizes) <= max(cut.most, longest)
    # Plain and attacked, with pictures and without; and with room for nothing, each of the twelve rows alone.
    assert counts[0] == 4 and counts[4] == 12 and counts[0] < counts[1] <= 12 and counts[0] < counts[2] < 12


def test_memory_that_does_not_suffice_halves_the_tokens_once(random_model: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    method, model = Row("ga").prepared(random_model, FORGET, ())
    seen: list[int] = []

    def refuse(_: Any, __: Any, named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].numel())
        if seen[-1] > most:
            torch.empty(2**46)

    hook = random_model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    encoder = random_model.encoder
    a, b, c, d = (len(encoder.row(row).text["input_ids"]) for row in FORGET)
    assert c < a and d < b and 2 * a < b  # a and c have pictures; b and d do not fit together, but each alone
    most = b
    step = GradientStep(model, method, TrainingConfig(max_tokens=None), 0, lambda loss: loss.backward())
    step.step(StepBatch(0, FORGET, ()))
    hook.remove()
    assert seen == [2 * a, 2 * b, 2 * a, d, b] and step.max_tokens == b
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == [f"memory does not hold {2 * b} tokens at once: from here on at most {b}, in more passes"]


@pytest.mark.parametrize(
    ("settings", "room", "expected"),
    [
        ({}, 4000, MemoryPlan(False, None)),  # 400 tokens of 10 bytes
        ({}, 3999, MemoryPlan(False, 399)),
        ({}, 1000, MemoryPlan(False, 100)),  # as many as are worth it without checkpointing
        ({}, 999, MemoryPlan(True, 333)),  # 3 bytes each with it
        ({}, -5, MemoryPlan(True, 1)),
        ({"gradient_checkpointing": False}, 500, MemoryPlan(False, 50)),
        ({"gradient_checkpointing": True}, 900, MemoryPlan(True, 300)),
        ({"max_tokens": 50}, 500, MemoryPlan(False, 50)),
        ({"max_tokens": 50}, 499, MemoryPlan(True, 50)),
        ({"max_tokens": None}, 3999, MemoryPlan(True, None)),
    ],
    ids=str,
)
def test_memory_decides_on_passes_and_checkpointing(settings: dict[str, Any], room: float, expected: MemoryPlan) -> None:
    """A step of 400 tokens, 10 bytes each, or 3 with checkpointing, which pays below passes of 100 tokens."""
    assert chosen(TrainingConfig(**settings), room=room, plain=10, saved=3, step=400, least=100, cuts=True) == expected


def test_what_cannot_be_cut_is_checkpointed() -> None:
    assert chosen(TrainingConfig(), room=3999, plain=10, saved=3, step=400, least=100, cuts=False) == MemoryPlan(True, None)
    assert chosen(TrainingConfig(), room=10, plain=10, saved=None, step=400, least=100, cuts=True) == MemoryPlan(False, 1)
