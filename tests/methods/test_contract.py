"""One contract for all methods: what a method may touch, what it must leave alone, and what it hands back."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.methods.table import ALSO_FULL, OTHERS, PADDED, TRAINED, Row, forget_rows, retain_rows
from vgid.config import resolve
from vgid.data.batching import Batch, Encoder
from vgid.errors import ConfigError, DataError, RunError
from vgid.methods import METHODS
from vgid.methods.base import StepBatch
from vgid.methods.cutting import WHOLE, Cut
from vgid.methods.engine import Plan
from vgid.models.export import save_checkpoint
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.structure import base_of, inspect_model
from vgid.settings import TrainingConfig
from vgid.training.fit import fit
from vgid.training.gradient_step import GradientStep
from vgid.unlearning import train_and_export

FORGET, RETAIN = tuple(forget_rows()), tuple(retain_rows())
STEP = StepBatch(0, FORGET, RETAIN)


def shaken(model: Any, size: float = 0.05) -> Any:
    """Trained weights moved a little, so that nothing is at its start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """Of all trained parameters, in one vector."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)])


def log_likelihood(model: Any, batch: Batch) -> torch.Tensor:
    """Of each row's answer, summed over its tokens: `[b]`."""
    targets = batch.answers.targets
    tokens = torch.log_softmax(answer_logits(model, batch), -1)[torch.arange(len(targets)), targets]
    return torch.stack([tokens[batch.owners == row].sum() for row in range(len(batch.ids))])


def base_weights(model: Any) -> dict[str, torch.Tensor]:
    """As the base calls them, without adapters."""
    state = base_of(model).state_dict()
    return {name.replace(".base_layer", ""): value.clone() for name, value in state.items() if ".lora_" not in name}


def test_every_method_is_in_the_table() -> None:
    assert {row.name for row in (*TRAINED, *PADDED, *OTHERS)} == set(METHODS)


# -- losses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TRAINED, ids=str)
def test_a_batch_is_the_mean_of_its_rows(random_model: LoadedModel, row: Row) -> None:
    """With and without pictures, of any length: each part of the loss is the mean of what its rows give alone."""
    method, model = row.prepared(random_model, FORGET, RETAIN)
    shaken(model, 0.02)
    together = method.loss(model, STEP)
    alone = [method.loss(model, StepBatch(0, (f,), (r,))) for f, r in zip(FORGET, RETAIN, strict=True)]
    assert together.total.isfinite() and together.parts
    for name, part in together.parts.items():
        assert part.item() == pytest.approx(sum(out.parts[name].item() for out in alone) / 4, rel=2e-4, abs=1e-6), name
    cut = [out.parts for out in method.passes(model, STEP, Cut(most=1))]  # each row in a pass of its own, where rows are cut
    for name, part in together.parts.items():
        assert sum(parts[name].item() for parts in cut if name in parts) == pytest.approx(part.item(), rel=2e-4, abs=1e-6), name


@pytest.mark.parametrize("row", TRAINED, ids=str)
def test_a_step_that_was_planned_ahead_is_the_same(random_model: LoadedModel, row: Row) -> None:
    """To the last bit; what depends on the step before is never planned ahead."""
    batches = [StepBatch(step, FORGET[step : step + 2], RETAIN[: step + 2]) for step in range(2)]
    found = []
    for ahead in (False, True):
        method, model = row.prepared(replace(random_model, model=copy.deepcopy(random_model.model)), FORGET, RETAIN)
        parameters = [p for p in shaken(model, 0.02).parameters() if p.requires_grad]
        descent = GradientStep(model, method, TrainingConfig(), 0, lambda loss: loss.backward(), ahead=ahead)
        made: list[int] = []

        def planned_now(batch: StepBatch, cut: Cut = WHOLE, plan: Any = method.plan, made: list[int] = made) -> Plan:
            made.append(batch.step)
            return plan(batch, cut)

        method.plan = planned_now  # type: ignore[method-assign]
        losses = []
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            losses.append(descent.step(batch, following).total)
            planned = made[-1:] == [following.step] if following else False
            assert planned == (ahead and following is not None and method.foreseen(following.step))
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter -= 0.1 * parameter.grad
                        parameter.grad = None
        assert sorted(set(made)) == made  # no step is planned twice
        found.append((losses, torch.cat([p.detach().flatten() for p in parameters])))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("row", TRAINED, ids=str)
def test_a_step_is_the_sum_of_its_sides(random_model: LoadedModel, row: Row) -> None:
    """Training takes them one after the other: a side without rows counts for nothing."""
    method, model = row.prepared(random_model, FORGET, RETAIN)
    shaken(model, 0.02)
    sides = [method.loss(model, side).total.item() for side in (STEP._replace(retain=()), STEP._replace(forget=()))]
    assert sum(sides) == pytest.approx(method.loss(model, STEP).total.item(), rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("row", TRAINED, ids=str)
def test_only_positions_that_predict_answers_get_a_gradient(random_model: LoadedModel, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    method, model = row.prepared(random_model, FORGET, RETAIN)
    shaken(model, 0.02)
    batches: list[Batch] = []
    calls: list[torch.Tensor] = []
    shown: list[torch.Tensor] = []
    collate = Encoder.collate

    def collated(self: Encoder, *arguments: Any, **named: Any) -> Batch:
        batches.append(collate(self, *arguments, **named))
        return batches[-1]

    def see(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if not torch.is_grad_enabled():
            return
        seen = next(each for each in batches if torch.equal(each.model_inputs["input_ids"], shown[-1]))
        answers = torch.zeros(inputs[0].shape[:2], dtype=torch.bool)
        answers[seen.answers.rows, seen.answers.positions] = True
        inputs[0].register_hook(lambda g: calls.append(g[~answers].abs().max()))

    monkeypatch.setattr(Encoder, "collate", collated)
    random_model.model.register_forward_pre_hook(lambda _, __, named: shown.append(named["input_ids"]), with_kwargs=True)
    # Registered first, so that it sees all positions before the answers' are taken.
    random_model.model.get_output_embeddings().register_forward_pre_hook(see)
    method.loss(model, STEP).total.backward()
    assert all(worst == 0.0 for worst in calls) and (calls or row.name in ("rmu", "null_space", "aim"))  # these compare states


@pytest.mark.parametrize("row", (*TRAINED, *PADDED), ids=str)
def test_gradients_reach_what_is_trained_and_nothing_else(random_model: LoadedModel, row: Row) -> None:
    method, model = row.prepared(random_model, FORGET, RETAIN)
    method.loss(shaken(model, 0.02), STEP).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or parameter.grad is None, name
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def parts_of(name: str, loaded: LoadedModel, *settings: str, size: float = 0.0) -> tuple[Any, Any, Any]:
    """A method's loss on the usual step, its gradient, and the model."""
    method, model = Row(name, settings).prepared(loaded, FORGET, RETAIN)
    shaken(model, size)
    out = method.loss(model, STEP)
    return out, gradient(model, out.total), model


def test_without_a_retain_term_gradient_difference_is_gradient_ascent(random_folder: Path) -> None:
    (ga, ga_slope, _), (diff, diff_slope, _), (kl, kl_slope, _) = (
        parts_of(name, load_model(random_folder), *settings, size=0.02)
        for name, settings in (("ga", ()), ("grad_diff", ("method.retain_weight=0",)), ("kl_min", ("method.retain_weight=0",)))
    )
    assert ga.total == diff.total == kl.total and torch.equal(ga_slope, diff_slope) and torch.equal(ga_slope, kl_slope)


def test_gradient_difference_adds_up(random_folder: Path) -> None:
    out, slope, _ = parts_of("grad_diff", load_model(random_folder), "method.retain_weight=3", size=0.02)
    _, forget, _ = parts_of("ga", load_model(random_folder), size=0.02)
    _, retain, _ = parts_of("finetune", load_model(random_folder), size=0.02)
    assert out.total.item() == pytest.approx(out.parts["forget"].item() + 3 * out.parts["retain"].item())
    assert torch.allclose(slope, forget + 3 * retain, atol=1e-6)


def test_npo_becomes_gradient_ascent(random_folder: Path) -> None:
    """beta -> 0: the gradient of the summed log-likelihood, here of one row, so that it is the mean's times the tokens."""
    step = StepBatch(0, FORGET[:1], ())
    slopes = []
    for name, settings in (("npo", ("method.beta=1e-6",)), ("ga", ())):
        loaded = load_model(random_folder)
        method, model = Row(name, settings).prepared(loaded, FORGET, RETAIN)
        slopes.append(gradient(shaken(model, 0.02), method.loss(model, step).total))
    tokens = len(load_model(random_folder).encoder.batch(FORGET[:1]).owners)
    assert torch.allclose(slopes[0], tokens * slopes[1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("npo", ("method.beta=0.5",), 4 * math.log(2)),  # p = p0: -2/beta ln sigma(0)
        ("dpo", (), math.log(2)),
        ("idk", ('method.refusals=["Oslo."]',), None),
        ("kl_min", (), None),
    ],
)
def test_losses_of_the_base_itself(random_model: LoadedModel, name: str, settings: tuple[str, ...], expected: float | None) -> None:
    out, _, model = parts_of(name, random_model, *settings)
    encoder = random_model.encoder
    if name == "idk":
        encoded = encoder.batch(FORGET, answers=["Oslo."] * 4)
        expected = -(log_likelihood(model, encoded) / torch.bincount(encoded.owners)).mean().item()
    if name == "kl_min":
        assert out.parts["retain"].abs() < 1e-6
        encoded = encoder.batch(FORGET)
        expected = (log_likelihood(model, encoded) / torch.bincount(encoded.owners)).mean().item()
    assert out.parts["forget"].item() == pytest.approx(expected, rel=1e-4)


def test_simnpo_by_its_formula(random_model: LoadedModel) -> None:
    out, _, model = parts_of("simnpo", random_model, "method.beta=0.5", "method.margin=0.25")
    encoded = random_model.encoder.batch(FORGET)
    means = log_likelihood(model, encoded) / torch.bincount(encoded.owners)
    expected = (4 * torch.log1p(torch.exp(0.5 * means + 0.25))).mean()  # -ln sigma(-x) = ln(1 + e^x)
    assert out.parts["forget"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_undial_without_strength_leaves_the_base_alone(random_folder: Path) -> None:
    settings = ("method.strength=0", "method.retain_weight=0")
    _, slope, _ = parts_of("undial", load_model(random_folder), *settings)
    _, held, _ = parts_of("undial", load_model(random_folder), "method.strength=10", "method.retain_weight=0")
    assert slope.abs().max() < 1e-3 * held.abs().max()


@pytest.mark.parametrize("relative", [True, False])
def test_rmu_by_its_formula(random_model: LoadedModel, relative: bool) -> None:
    settings = ("method.layer=2", "method.scale=3", f"method.relative={str(relative).lower()}")
    method, model = Row("rmu", settings).prepared(random_model, FORGET, RETAIN)
    out = method.loss(model, STEP)
    means, norms = [], []
    for row in FORGET:
        encoded = random_model.encoder.batch([row])
        with torch.no_grad():
            states = model(**encoded.model_inputs, output_hidden_states=True).hidden_states[3]  # [0] is the embeddings
        means.append((states[0, encoded.answers.positions] - method.target).square().sum(-1).mean())
        norms.append(states[0, encoded.answers.positions].norm(dim=-1).mean())
    length = torch.stack(norms).mean().item() if relative else 1.0
    assert out.parts["retain"] == 0.0 and method.target.norm().item() == pytest.approx(3 * length, rel=1e-4)
    assert out.parts["forget"].item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-4)


def test_rmu_takes_layers_that_are_there(random_model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"(?s)no such layer.*from 0 to 4.*found: 5"):
        Row("rmu", ("method.layer=5",)).prepared(random_model, FORGET, RETAIN)


def test_refusals_vary_by_step_and_row_and_by_nothing_else() -> None:
    config = resolve(method="idk").build_method().config
    assert config.refuse(FORGET, 1, 2) == [config.refuse((row,), 1, 2)[0] for row in FORGET]
    assert len({tuple(config.refuse(FORGET, 1, step)) for step in range(20)}) > 10
    with pytest.raises(ConfigError, match="a refusal is empty"):
        resolve(None, ['method.refusals=[" "]'], method="idk")


# -- runs -----------------------------------------------------------------------------------------------------------------


ALIKE = (
    *("vgid", "ga", "grad_diff", "kl_min", "simnpo", "dpo", "undial", "finetune", "retrain"),
    *("wga", "satimp", "altpo", "duet", "viker", "pdu", "vkd", "null_space", "slug", "siu", "aim"),
)
"""Methods that run as others do, and differ in their loss only."""
RUNS = [
    pytest.param(row, marks=pytest.mark.slow) if (row.full and row in ALSO_FULL) or row.name in ALIKE else row
    for row in (*TRAINED, *OTHERS, *ALSO_FULL)
]


@pytest.mark.parametrize("row", RUNS, ids=str)
def test_a_run_touches_its_scope_repeats_and_is_written_as_it_is(random_folder: Path, row: Row, tmp_path: Path) -> None:
    before = base_weights(load_model(random_folder).model)
    # Reloads what was written with stock libraries and compares it (verify_export).
    train_and_export(load_model(random_folder), FORGET, RETAIN, row.config, out=tmp_path)
    fitted, again = (fit(load_model(random_folder), FORGET, RETAIN, row.config) for _ in range(2))
    model, encoded = fitted.loaded.model, Encoder(fitted.loaded.processor).batch([*FORGET, *RETAIN])
    assert not model.training
    for (name, one), (_, two) in zip(model.state_dict().items(), again.loaded.model.state_dict().items(), strict=True):
        assert torch.equal(one, two), name
    with torch.no_grad():
        merged = load_model(tmp_path / "merged").model
        assert torch.allclose(answer_logits(merged, encoded), answer_logits(model, encoded), atol=1e-4)
    adapted = hasattr(model, "peft_config")
    assert (tmp_path / "adapter").exists() == adapted
    after, written = base_weights(model), base_weights(merged)
    structure = inspect_model(merged)
    changed = {name for name in before if not torch.equal(before[name], written[name])}
    if row.name in ("icu", "untouched"):
        assert not changed and fitted.stopped == "nothing to train" and not fitted.curves
        return
    assert changed
    if adapted:  # the reference: the base beneath the adapter is what it was, bit by bit
        assert all(torch.equal(after[name], before[name]) for name in before)
    visual, both = {"vision", "projector"}, {"language", "vision"}
    allowed = {"manu": both, "mip_editor": both, "aim": {"vision"}, "vkd": visual, "null_space": visual}
    scope = allowed.get(row.name, {"language", "projector"} if row.config.adapter is None else {"language"})
    assert {structure.part_of(name) for name in changed} <= scope


def test_another_seed_is_another_run(random_folder: Path) -> None:
    config = Row("idk").config
    one, two = (fit(load_model(random_folder), FORGET, RETAIN, config.model_copy(update={"seed": seed})) for seed in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(one.loaded.model.parameters(), two.loaded.model.parameters(), strict=True))


def hooks(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """How many of each kind every module and every parameter has."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [tuple(len(getattr(module, kind)) for kind in kinds) for module in model.modules()]
    return [*modules, *((len(p._backward_hooks or ()),) for p in model.parameters())]


@pytest.mark.parametrize(
    "row", [row for row in (*TRAINED, OTHERS[0]) if row.name in ("npo", "rmu", "mmunlearner", "mip_editor", "manu")], ids=str
)
def test_no_hook_is_left_behind_by_a_run_that_fails(random_model: LoadedModel, row: Row) -> None:
    class BrokenError(Exception):
        pass

    calls = iter(range(100))

    def fail(*_: Any) -> None:
        if next(calls) == 2:
            raise BrokenError

    model, trained = random_model.model, random_model.model
    with torch.no_grad():
        answer_logits(model, random_model.encoder.batch(FORGET))  # transformers' own hooks come with the first pass
    if row.config.adapter is None or row.name == "manu":
        before = hooks(model)
        hook = model.model.language_model.layers[3].mlp.down_proj.register_forward_hook(fail)
        with pytest.raises(BrokenError):
            fit(random_model, FORGET, RETAIN, row.config)
    else:
        method, trained = row.prepared(random_model, FORGET, RETAIN)
        before = hooks(trained)
        hook = base_of(trained).model.language_model.layers[3].mlp.register_forward_hook(fail)
        with pytest.raises(BrokenError):
            for _ in range(3):
                method.loss(trained, STEP)
    hook.remove()
    assert hooks(trained) == before


@pytest.mark.parametrize("row", [row for row in (*TRAINED, OTHERS[0]) if row.name not in ALIKE], ids=str)
def test_weights_that_are_no_numbers_stop_the_run(random_model: LoadedModel, row: Row) -> None:
    with torch.no_grad():
        random_model.model.model.language_model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(RunError, match=r"the loss is nan|is not finite|no weight matters more"):
        fit(random_model, FORGET, RETAIN, row.config)


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["finetune", "retrain", "mmunlearner", "manu", "mip_editor", "smfa", "pdu", "null_space", "slug"])
def test_methods_that_need_retain_data_say_so(random_model: LoadedModel, name: str) -> None:
    row = next(row for row in (*TRAINED, *OTHERS) if row.name == name)
    with pytest.raises(DataError, match=r"(?s)cannot do without retain data.*fix: give a retain set"):
        fit(random_model, FORGET, (), row.config)


@pytest.mark.parametrize("row", [row for row in TRAINED if row.name in ("ga", "npo", "rmu")], ids=str)
def test_others_do_without(random_model: LoadedModel, row: Row) -> None:
    fitted = fit(random_model, FORGET, (), row.config)
    assert set(fitted.curves) == {"forget"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mmunlearner", ["adapter={}"], r"(?s)changes the weights themselves.*fix: set adapter=null"),
        ("mip_editor", ["adapter={}"], r"(?s)changes the weights themselves.*fix: set adapter=null"),
        ("smfa", ["adapter=null"], r"(?s)works with adapters.*fix: leave the adapter at its default"),
        ("npo", ["method.bta=1"], "did you mean 'beta'"),
        ("nppo", [], "did you mean 'npo'"),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(None, settings, method=name)


def test_the_untouched_model_is_untouched(random_model: LoadedModel) -> None:
    before = copy.deepcopy(random_model.model.state_dict())
    fitted = fit(random_model, FORGET, RETAIN, Row("untouched").config)
    assert fitted.loaded.model is random_model.model
    assert all(torch.equal(before[name], value) for name, value in fitted.loaded.model.state_dict().items())


def test_a_written_checkpoint_of_a_sculpted_model_has_no_trace_of_adapters(random_model: LoadedModel, tmp_path: Path) -> None:
    fitted = fit(random_model, FORGET, RETAIN, Row("smfa").config)
    assert not any("lora" in name for name, _ in fitted.loaded.model.named_modules())
    save_checkpoint(fitted.loaded.model, fitted.loaded.processor, tmp_path / "plain")
    assert load_model(tmp_path / "plain")
