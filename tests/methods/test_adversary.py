"""The sparring partner learns what it is taught, leaves the model alone, and goes on from where it was."""

import copy
from typing import Any

import pytest
import torch

from tests.methods.table import Row, forget_rows
from vgid.config import resolve
from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.errors import ConfigError
from vgid.methods.base import StepBatch
from vgid.methods.common.terms import nll
from vgid.methods.vgid.adversary import BOUT, RelearningAdversary, can_split
from vgid.methods.vgid.method import VGID
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.seeds import derive_seed
from vgid.training.fit import fit

FORGET = tuple(forget_rows())
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


def test_half_of_the_people_are_taught_for_a_bout(random_model: LoadedModel) -> None:
    partner = RelearningAdversary(random_model.model, people(6), 1e-3, seed=1)
    bouts = [{partner.taught(step) for step in range(start, start + BOUT)} for start in range(0, 20 * BOUT, BOUT)]
    assert all(len(taught) == 1 and len(next(iter(taught))) == 3 for taught in bouts)
    assert set().union(*(next(iter(taught)) for taught in bouts)) == {f"person {who}" for who in range(6)}
    known, others = partner.split(0, people(6))
    assert {row.subject for row in known} == partner.taught(0) and len(known) == len(others) == 9
    assert {row.subject for row in partner.lesson(0)} <= partner.taught(0) and partner.lesson(0) != partner.lesson(1)


def test_of_a_single_person_half_of_the_answers_are_taught(random_model: LoadedModel) -> None:
    same = [Example(f"{n}-{k}", f"Wording {k} of {n}?", f"Answer {n}.", subject="one") for n in range(4) for k in range(2)]
    known, others = RelearningAdversary(random_model.model, same, 1e-3, seed=1).split(0, same)
    assert len(known) == len(others) == 4 and not {row.answer for row in known} & {row.answer for row in others}


def test_one_answer_is_nobody_to_spar_about(random_model: LoadedModel) -> None:
    assert can_split(people(2)) and can_split(people(1)) and not can_split(people(1, each=1))
    method, model = Row("vgid", ONLY).prepared(random_model, FORGET[:1], ())
    assert method.loss(model, StepBatch(0, FORGET[:1], ())).total.isfinite()


def test_compiled_layers_are_refused(random_model: LoadedModel) -> None:
    config = resolve(None, ["training.torch_compile=true"], method="vgid")
    with pytest.raises(ConfigError, match=r"method\.sparring=0 and method\.states=0"):
        fit(random_model, FORGET, FORGET, config)


def test_it_learns_and_the_model_does_not(random_model: LoadedModel) -> None:
    method, model = prepared(random_model)
    before = copy.deepcopy(model.state_dict())
    partner, loss = method._partner, lambda rows: nll(model, method.context, rows)
    lesson = partner.lesson(0)
    plain = loss(lesson).item()
    with partner.at_work():
        assert loss(lesson).item() == pytest.approx(plain, abs=1e-6)  # nothing learned yet
    for step in range(BOUT):
        partner.learn(step, loss)
        partner.learn(step, loss)  # a second pass of the same step changes nothing
    with partner.at_work():
        taught = loss(lesson).item()
    assert taught < plain - 0.01 and loss(lesson).item() == pytest.approx(plain, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_one_step_by_hand(random_model: LoadedModel) -> None:
    """AdamW's first step from zero is one of the learning rate against the gradient's sign."""
    method, model = prepared(random_model)
    partner: RelearningAdversary = method._partner
    name, layer = next(iter(partner.layers.items()))
    partner.learn(0, lambda rows: nll(model, method.context, rows))
    up = partner.carried()[f"{name}/up"]
    generator = torch.Generator().manual_seed(derive_seed(5, "sparring", 0, name) % 2**63)
    down = (torch.rand(8, layer.in_features, generator=generator) * 2 - 1) / layer.in_features**0.5
    # The gradient of W is that of up, led back through what is added: dL/dup = 2 dL/dW down^T.
    weight = layer.weight
    weight.requires_grad_(True)
    (gradient,) = torch.autograd.grad(nll(model, method.context, partner.lesson(0)), [weight])
    wanted = -2e-3 * (2 * gradient @ down.T).sign()
    # AdamW divides by |gradient| + 1e-8, so where there is next to no gradient it steps less, and rounding decides the sign.
    steep = (gradient @ down.T).abs() > 1e-7
    assert (up - wanted)[steep].abs().max() < 2e-4 and steep.float().mean() > 0.9


def test_what_it_asks_is_asked_of_the_model_with_its_weights(random_model: LoadedModel) -> None:
    """Forget loss and gradients, with the partner's weights added to the layers' own, against hooks and gradients worked out early."""
    method, model = prepared(random_model)
    step = StepBatch(7, FORGET, ())
    method.loss(model, step).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    partner: RelearningAdversary = method._partner
    known, others = partner.split(7, FORGET)
    assert known and others
    plain = VGID(method.config.model_copy(update={"sparring": 0.0}))
    plain.prepare(model, method.context)
    total = plain.loss(model, StepBatch(7, known, ())).total * (len(known) / len(FORGET))
    total.backward()
    state, carried = copy.deepcopy(model.state_dict()), partner.carried()
    target = {row.id: _teacher_logits(model, plain.teacher_batch((row,), 7)) for row in others}
    for name, layer in partner.layers.items():
        layer.weight.data += 2 * carried[f"{name}/up"] @ carried[f"{name}/down"]
    plain._target = lambda base, examples, step, answers: torch.cat([target[e.id] for e in examples])  # type: ignore[method-assign]
    attacked = plain.loss(model, StepBatch(7, others, ())).total * (len(others) / len(FORGET))
    attacked.backward()
    model.load_state_dict(state)
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(found[name], p.grad, atol=2e-5), name


def _teacher_logits(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad(), model.disable_adapter():
        return answer_logits(model, batch)


def test_a_bout_is_carried_on(random_model: LoadedModel) -> None:
    method, model = prepared(random_model)
    partner, loss = method._partner, lambda rows: nll(model, method.context, rows)
    for step in range(BOUT + 3):
        partner.learn(step, loss)
    carried = {name: value.clone() for name, value in partner.carried().items()}
    partner.learn(BOUT + 3, loss)
    other = RelearningAdversary(model, FORGET, 2e-3, seed=5)
    other.take_up(carried)
    other.learn(BOUT + 3, loss)
    one, two = partner.carried(), other.carried()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
