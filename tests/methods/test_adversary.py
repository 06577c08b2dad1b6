"""The relearning adversary learns its inner batches, leaves the model alone, and resumes from its state."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.table import Row, forget_rows
from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.methods.base import Context, StepBatch
from vgid.methods.common.terms import nll
from vgid.methods.vgid.adversary import AdversaryConfig, RelearningAdversary, can_split
from vgid.methods.vgid.method import VGID
from vgid.models.adapters import attach_lora
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.structure import base_of, unfreeze
from vgid.seeds import derive_seed
from vgid.settings import AdapterConfig

FORGET = tuple(forget_rows())
CONFIG = AdversaryConfig(rate=1e-3)
PERIOD = CONFIG.period
ONLY = (
    "method.answers=[recorded]",
    "method.hidden_state_weight=0",
    "method.guess_penalty=0",
    "method.mask_names=false",
    "method.beta=0",
    "method.alpha=1",
    "method.adversary.rate=2e-3",
)


def prepared(loaded: LoadedModel, *settings: str) -> tuple[Any, Any]:
    method, model = Row("vgid", (*ONLY, *settings)).prepared(loaded, FORGET, ())
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return method, model


def people(count: int, each: int = 3) -> list[Example]:
    return [Example(f"{who}-{n}", f"What is fact {n}?", f"{who}{n}", subject=f"person {who}") for who in range(count) for n in range(each)]


def test_an_adversary_trains_on_half_of_the_subjects_for_a_period(random_model: LoadedModel) -> None:
    adversary = RelearningAdversary(random_model.model, people(6), CONFIG, seed=1)
    starts = range(0, 20 * PERIOD, PERIOD)
    periods = [{adversary.subjects(step) for step in range(start, start + PERIOD)} for start in starts]
    assert all(len(found) == 1 and len(next(iter(found))) == 3 for found in periods)
    assert set().union(*(next(iter(found)) for found in periods)) == {f"person {who}" for who in range(6)}
    known, others = adversary.split(0, people(6))
    assert {row.subject for row in known} == adversary.subjects(0) and len(known) == len(others) == 9
    assert {row.subject for row in adversary.inner_batch(0)} <= adversary.subjects(0) and adversary.inner_batch(0) != adversary.inner_batch(
        1
    )


def test_with_a_single_subject_it_trains_on_half_of_the_facts(random_model: LoadedModel) -> None:
    same = [Example(f"{n}-{k}", f"Wording {k} of {n}?", f"Answer {n}.", subject="one") for n in range(4) for k in range(2)]
    known, others = RelearningAdversary(random_model.model, same, CONFIG, seed=1).split(0, same)
    assert len(known) == len(others) == 4 and not {row.answer for row in known} & {row.answer for row in others}


def test_it_takes_three_steps_at_a_time_against_narrow_updates(random_model: LoadedModel) -> None:
    assert [RelearningAdversary(random_model.model, people(2), AdversaryConfig(steps=n), seed=1).steps for n in (None, 2)] == [1, 2]
    adversary = RelearningAdversary(random_model.model, people(1, each=32), CONFIG, seed=1, narrow=True)
    assert adversary.steps == 3
    seen: list[tuple[Example, ...]] = []

    def loss(rows: tuple[Example, ...]) -> Tensor:
        seen.append(rows)
        return sum((up.sum() for _, up in adversary.adapter.weights().values()), torch.zeros(()))

    adversary.learn(0, loss)
    adversary.learn(0, loss)  # a second pass of the same step changes nothing
    adversary.learn(1, loss)
    assert seen == [adversary.inner_batch(step, turn) for step in range(2) for turn in range(3)]
    assert len(set(seen)) == 6 and all({row.id for row in rows} <= {row.id for row in adversary.forget} for rows in seen)
    # AdamW's steps have the size of the learning rate where the gradient does not change.
    for _, up in adversary.adapter.weights().values():
        assert torch.allclose(up, torch.full_like(up, -6 * CONFIG.rate), rtol=1e-2)
    adversary.remove()


def test_a_row_about_two_facts_teaches_neither_unless_both_are_taught(random_model: LoadedModel) -> None:
    single = [Example(word, f"{word}?", f"It is {word}.", keywords=(word,)) for word in "abcd"]
    both = [
        Example(f"{one}{two}", f"{one}? {two}?", f"{one}, {two}.", keywords=(one, two)) for one in "abcd" for two in "abcd" if one < two
    ]
    adversary = RelearningAdversary(random_model.model, [*single, *both], CONFIG, seed=1)
    known, others = adversary.split(0, [*single, *both])
    taught = {row.id for row in known if len(row.id) == 1}
    assert len(taught) == 2 and {row.id for row in known} == {*taught, "".join(sorted(taught))} and len(others) == 7
    assert set(adversary.inner_batch(0)) == set(known)


def test_one_answer_cannot_be_split(random_model: LoadedModel) -> None:
    assert can_split(people(2)) and can_split(people(1)) and not can_split(people(1, each=1))
    method, model = Row("vgid", ONLY).prepared(random_model, FORGET[:1], ())
    assert method.loss(model, StepBatch(0, FORGET[:1], ())).total.isfinite()


def test_it_learns_and_the_model_does_not(random_model: LoadedModel) -> None:
    method, model = prepared(random_model)
    before = copy.deepcopy(model.state_dict())
    adversary, loss = method._adversary, lambda rows: nll(model, method.context, rows)
    rows = adversary.inner_batch(0)
    plain = loss(rows).item()
    with adversary.active():
        assert loss(rows).item() == pytest.approx(plain, abs=1e-6)  # nothing learned yet
    for step in range(PERIOD):
        adversary.learn(step, loss)
        adversary.learn(step, loss)  # a second pass of the same step changes nothing
    with adversary.active():
        learned = loss(rows).item()
    assert learned < plain - 0.01 and loss(rows).item() == pytest.approx(plain, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if ".adversary." not in name)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("full", [False, True])
def test_it_is_no_part_of_what_is_trained_and_leaves_no_trace(random_model: LoadedModel, full: bool) -> None:
    model: Any = random_model.model
    if full:
        unfreeze(model, ["language"])
    else:
        model = attach_lora(model, AdapterConfig(rank=2, scope=("projector",)), seed=0)  # layers that the adversary has to itself
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    context = Context(random_model.encoder, FORGET, (), 5, torch.device("cpu"), copy.deepcopy(model) if full else None)
    adversary = RelearningAdversary(model, FORGET, CONFIG, seed=1)
    rows = adversary.inner_batch(0)
    plain = nll(model, context, rows).item()
    for step in range(2):
        adversary.learn(step, lambda rows: nll(model, context, rows))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.replace(".base_layer", "") for name in trained} == {name for name, wanted in before.items() if wanted}
    with adversary.active():
        attacked = nll(model, context, rows)
        attacked.backward()
    assert attacked.item() < plain - 1e-4 and nll(model, context, rows).item() == plain
    assert all(pair[1].grad is None for pair in adversary.adapter.weights().values())
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name in trained and "lora_A" not in name)
    adversary.remove()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert not any("adversary" in name for name, _ in model.named_modules()) and nll(model, context, rows).item() == plain


def test_one_step_by_hand(random_model: LoadedModel) -> None:
    """AdamW's first step from zero is one of the learning rate against the gradient's sign."""
    method, model = prepared(random_model)
    adversary: RelearningAdversary = method._adversary
    name = next(iter(adversary.adapter.weights()))
    layer = base_of(model).get_submodule(name).get_base_layer()
    adversary.learn(0, lambda rows: nll(model, method.context, rows))
    up = adversary.state_dict()[f"{name}/up"]
    generator = torch.Generator().manual_seed(derive_seed(5, "sparring", 0, name) % 2**63)
    down = (torch.rand(8, layer.in_features, generator=generator) * 2 - 1) / layer.in_features**0.5
    # The gradient of W is that of up, led back through what is added: dL/dup = 2 dL/dW down^T.
    weight = layer.weight
    weight.requires_grad_(True)
    (gradient,) = torch.autograd.grad(nll(model, method.context, adversary.inner_batch(0)), [weight])
    wanted = -2e-3 * (2 * gradient @ down.T).sign()
    # AdamW divides by |gradient| + 1e-8, so where there is next to no gradient it steps less, and rounding decides the sign.
    steep = (gradient @ down.T).abs() > 1e-7
    assert (up - wanted)[steep].abs().max() < 2e-4 and steep.float().mean() > 0.9


def test_what_it_asks_is_asked_of_the_model_with_its_weights(random_model: LoadedModel) -> None:
    """Forget loss and gradients, with the adversary's weights added to the layers' own, against hooks and gradients worked out early."""
    method, model = prepared(random_model)
    step = StepBatch(7, FORGET, ())
    method.loss(model, step).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    adversary: RelearningAdversary = method._adversary
    known, others = adversary.split(7, FORGET)
    assert known and others
    plain = VGID(method.config.model_copy(update={"adversary": None}))
    plain.prepare(model, method.context)
    total = plain.loss(model, StepBatch(7, known, ())).total * (len(known) / len(FORGET))
    total.backward()
    state, own = copy.deepcopy(model.state_dict()), adversary.state_dict()
    target = {row.id: _teacher_logits(model, plain.teacher_batch((row,), 7)) for row in others}
    for name in adversary.adapter.weights():
        base_of(model).get_submodule(name).get_base_layer().weight.data += 2 * own[f"{name}/up"] @ own[f"{name}/down"]
    plain = VGID(method.config.model_copy(update={"adversary": None, "redraw": False}))
    plain.prepare(model, method.context)
    plain._taught["recorded"] = Fixed(target)  # type: ignore[assignment]
    attacked = plain.loss(model, StepBatch(7, others, ())).total * (len(others) / len(FORGET))
    attacked.backward()
    model.load_state_dict(state)
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(found[name], p.grad, atol=2e-5), name


class Fixed:
    """Logits of the teacher as they were before the weights were changed."""

    def __init__(self, logits: dict[str, torch.Tensor]) -> None:
        self._logits = logits

    def logits(self, _: Any, examples: Any) -> torch.Tensor:
        return torch.cat([self._logits[example.id] for example in examples])


def _teacher_logits(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad(), model.disable_adapter():
        return answer_logits(model, batch)


def test_a_period_goes_on_from_its_state(random_model: LoadedModel) -> None:
    method, model = prepared(random_model)
    adversary, loss = method._adversary, lambda rows: nll(model, method.context, rows)
    for step in range(PERIOD + 3):
        adversary.learn(step, loss)
    saved = {name: value.clone() for name, value in adversary.state_dict().items()}
    adversary.learn(PERIOD + 3, loss)
    one = {name: value.clone() for name, value in adversary.state_dict().items()}
    adversary.remove()
    other = RelearningAdversary(model, FORGET, AdversaryConfig(rate=2e-3), seed=5)
    other.load_state_dict(saved)
    other.learn(PERIOD + 3, loss)
    two = other.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
