"""A step in parts: the same loss and the same gradients as the step as a whole."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from tests.conftest import example
from tests.training.worker import rows
from vgid.config import load_config
from vgid.data.example import Example
from vgid.errors import ConfigError, RunError
from vgid.memory import as_many_as_fit
from vgid.methods.base import Context, Method, StepBatch
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel
from vgid.settings import AdapterConfig, TrainingConfig
from vgid.training.gradient_step import GradientStep
from vgid.training.shares import Part, evenly, parts_of

SEEN, UNSEEN = tuple(example(n) for n in range(5)), tuple(example(n, image=False) for n in range(5, 7))
STEP = StepBatch(3, SEEN[:3], (*SEEN[3:], *UNSEEN))
"""Three forget rows, all with pictures; four retain rows, two of them without."""


@pytest.mark.parametrize(("count", "pieces", "lengths"), [(7, 3, [2, 2, 3]), (2, 4, [0, 1, 0, 1]), (0, 2, [0, 0]), (4, 1, [4])])
def test_pieces_differ_by_one_at_most_and_keep_the_order(count: int, pieces: int, lengths: list[int]) -> None:
    cut = evenly(list(range(count)), pieces)
    assert [len(piece) for piece in cut] == lengths and [x for piece in cut for x in piece] == list(range(count))


def test_one_process_with_room_takes_either_side_whole() -> None:
    sides = [Part(StepBatch(3, STEP.forget, ()), 1.0), Part(StepBatch(3, (), STEP.retain), 1.0)]
    assert parts_of(STEP) == parts_of(STEP, 4) == sides
    assert parts_of(StepBatch(3, (), STEP.retain)) == sides[1:]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("most", [None, 1, 2, 6])
def test_every_row_counts_once(most: int | None, count: int, together: bool) -> None:
    """With weight 1/3 for each forget row and 1/4 for each retain row, wherever it ends up."""
    found: Counter[str] = Counter()
    for rank in range(count):
        for batch, weight in parts_of(STEP, most, rank, count, together=together):
            for row in (*batch.forget, *batch.retain):
                found[row.id] += weight / len((*batch.forget, *batch.retain))
            assert most is None or len((*batch.forget, *batch.retain)) <= most
    assert found == {row.id: pytest.approx(1 / len(side)) for side in STEP[1:] for row in side}


def test_processes_that_must_go_together_take_the_same_kinds_of_passes() -> None:
    """Five processes, but three, two and two rows of a kind: who has none looks at a neighbour's, which counts for nothing."""
    taken = [parts_of(STEP, None, rank, 5, together=True) for rank in range(5)]
    kinds = [[(bool(b.forget), bool((*b.forget, *b.retain)[0].images)) for b, _ in parts] for parts in taken]
    assert kinds == [[(True, True), (False, True), (False, False)]] * 5
    assert sorted(parts[2].weight for parts in taken) == [0.0, 0.0, 0.0, 0.25, 0.25]


def test_rows_that_meet_another_state_of_the_model_are_parts_of_their_own_in_every_process() -> None:
    """The second forget row alone meets the attacked model; the process without it takes the pass too, with weight 0."""

    def state(step: int, row: Example) -> bool:
        return step == STEP.step and row is SEEN[1]

    taken = [parts_of(STEP, None, rank, 2, together=True, state=state) for rank in range(2)]
    seen = [[([row.id for row in batch.forget], weight) for batch, weight in parts if batch.forget] for parts in taken]
    assert seen[0] == [([SEEN[0].id], pytest.approx(1 / 3)), ([SEEN[1].id], 0.0)]
    assert seen[1] == [([SEEN[2].id], pytest.approx(1 / 3)), ([SEEN[1].id], pytest.approx(1 / 3))]


def prepared(loaded: LoadedModel, *overrides: str) -> GradientStep:
    config = load_config(None, overrides or ["method.answers=[student]"])
    model, method = attach_lora(loaded.model, AdapterConfig(dropout=0.0), seed=0), config.build_method()
    with torch.no_grad():  # an adapter that has begun to learn: with B = 0 half of the gradients vanish
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    method.prepare(model, Context(loaded.encoder, rows(0, 5, "Oslo."), (), 5, torch.device("cpu")))
    return GradientStep(model.eval(), method, config.training, 0, lambda loss: loss.backward())


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_micro_batches_give_the_gradient_of_the_whole_step(random_model: LoadedModel, micro_batch: int) -> None:
    descent = prepared(random_model)
    batch = StepBatch(0, tuple(rows(0, 5, "This is Anna Keller.")), tuple(rows(20, 4, "She lives in Oslo.")))
    losses, gradients = [], []
    for descent.micro_batch in (None, micro_batch):
        descent.model.zero_grad()
        losses.append(descent.step(batch))
        gradients.append({name: p.grad.clone() for name, p in descent.model.named_parameters() if p.grad is not None})
    whole, parts = losses
    assert parts.parts.keys() == {"forget", "retain"} and parts.parts == pytest.approx(whole.parts, abs=1e-6)
    assert parts.total == pytest.approx(whole.total, abs=1e-5)  # the retain loss is near 8, and weighs four times
    assert gradients[0].keys() == gradients[1].keys() and max(g.abs().max() for g in gradients[0].values()) > 1e-3

    assert all(torch.allclose(gradients[0][name], gradients[1][name], rtol=1e-5, atol=2e-6) for name in gradients[0])


def test_a_loss_that_compares_padding_cannot_be_taken_apart(random_model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="cannot be taken apart"):
        prepared(random_model, "method=vgid_released", "training.micro_batch=2")


class Greedy:
    """A loss that needs more memory than there is for more than so many rows at once."""

    states_terms = False

    def unsupported(self) -> dict[str, object]:
        return {}

    def passes(self, model, batch, cut, plan):  # type: ignore[no-untyped-def]
        return Method.passes(self, model, batch, cut)  # type: ignore[arg-type]

    def __init__(self, most: int) -> None:
        self.most, self.counts = most, []

    def loss(self, model, batch):  # type: ignore[no-untyped-def]
        from vgid.methods.base import LossOutput

        count = len(batch.forget) + len(batch.retain)
        self.counts.append(count)
        if count > self.most:
            torch.empty(2**46)
        loss = sum(int(row.id[4:]) for row in (*batch.forget, *batch.retain)) / count * model.weight.sum()
        return LossOutput(loss, {"loss": loss.detach()})


def test_memory_that_does_not_suffice_halves_the_batch_once(caplog: pytest.LogCaptureFixture) -> None:
    """The three forget rows fit, the four retain rows do not: all once more, two at a time, with pictures and without apart."""
    model, greedy = torch.nn.Linear(1, 1), Greedy(most=3)
    descent = GradientStep(model, greedy, TrainingConfig(), 0, lambda loss: loss.backward())  # type: ignore[arg-type]
    descent.step(STEP)
    # The mean over forget rows is 1, over retain rows 4.5.
    assert model.weight.grad is not None and model.weight.grad.item() == pytest.approx(5.5)
    descent.step(STEP)
    assert greedy.counts == [3, 4, 1, 2, 2, 2, 1, 2, 2, 2] and descent.micro_batch == 2
    assert caplog.messages == ["memory does not hold 4 rows at once: from here on 2 in twice as many passes"]


def test_memory_that_does_not_suffice_twice_is_told_with_an_estimate() -> None:
    descent = GradientStep(torch.nn.Linear(1000, 1000), Greedy(most=1), TrainingConfig(), 0, lambda loss: loss.backward())  # type: ignore[arg-type]
    # 1,001,000 numbers of four bytes; AdamW keeps two more of each.
    with pytest.raises(
        RunError, match=r"(?s)does not suffice.*room for 2 rows.*weights 0.00 GB; gradients 0.00 GB; optimizer about 0.01 GB"
    ):
        descent.step(STEP)


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    class Root(Greedy):
        def loss(self, model, batch):  # type: ignore[no-untyped-def]
            from vgid.methods.base import LossOutput

            return LossOutput((model.weight * 0.0).sqrt().sum(), {})  # 0, with an infinite slope

    with pytest.raises(RunError, match=r"(?s)the gradient is nan at step 4.*rows row-0, row-1"):
        GradientStep(torch.nn.Linear(1, 1), Root(9), TrainingConfig(), 0, lambda loss: loss.backward()).step(STEP)  # type: ignore[arg-type]


def test_calls_that_do_not_fit_are_made_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    def call(items: Sequence[int]) -> list[int]:
        asked.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError
        return [2 * item for item in items]

    assert as_many_as_fit(call, range(5)) == [0, 2, 4, 6, 8]
    assert asked == [5, 2, 3, 1, 2] and "memory does not hold 5 rows at once" in caplog.text

    def full(items: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        as_many_as_fit(full, [1])
    with pytest.raises(RuntimeError, match="something else"):
        as_many_as_fit(lambda items: (_ for _ in ()).throw(RuntimeError("something else")), [1, 2])
