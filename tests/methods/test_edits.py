"""Methods that choose weights or neurons, each against a slow, direct computation of what its paper says."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.table import Row, forget_rows, retain_rows
from vgid.config import resolve
from vgid.errors import ConfigError, ModelError, RunError
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import score
from vgid.instructions import INSTRUCTIONS
from vgid.methods.base import Context, StepBatch
from vgid.methods.common.paths import locate, path_scores
from vgid.methods.icu import InContext
from vgid.methods.manu import Moments, choose, importance
from vgid.methods.smfa import conflicts
from vgid.models.adapters import adapted_modules
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.structure import MLP, decoder_layers, feed_forward, unfreeze
from vgid.perturbation import NoiseConfig, perturb
from vgid.seeds import derive_seed
from vgid.training.fit import fit

FORGET, RETAIN = tuple(forget_rows()), tuple(retain_rows())
STEP = StepBatch(0, FORGET, RETAIN)


@pytest.fixture
def lively(random_model: LoadedModel) -> LoadedModel:
    """Weights as usual are so small that neurons hardly differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in random_model.model.parameters():
            if parameter.ndim == 2:
                parameter *= 4.0
            elif parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return random_model


# -- structure ------------------------------------------------------------------------------------------------------------


def test_feed_forward_blocks_are_found_by_their_shape(random_model: LoadedModel) -> None:
    blocks = feed_forward(random_model.model, ["language", "vision"])
    assert [(block.part, block.width, len(block.ups)) for block in blocks] == [("vision", 512, 1)] * 3 + [("language", 640, 2)] * 5
    assert blocks[-1].down is random_model.model.model.language_model.layers[4].mlp.down_proj
    assert blocks[0].ups == (random_model.model.model.vision_tower.encoder.layers[0].mlp.fc1,)
    assert decoder_layers(random_model.model) == list(random_model.model.model.language_model.layers)


def test_parts_without_neurons_are_told(random_model: LoadedModel) -> None:
    for layer in random_model.model.model.language_model.layers:
        layer.mlp = nn.Linear(192, 192)
    with pytest.raises(ModelError, match=r"(?s)no feed-forward neurons found.*in language"):
        feed_forward(random_model.model, ["language", "vision"])


# -- MMUnlearner ----------------------------------------------------------------------------------------------------------


def slow_fisher(loaded: LoadedModel, rows: Any, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    """Mean over rows of squared gradients, one row and one backward pass at a time, through full logits."""
    total = [torch.zeros_like(p) for p in parameters]
    for row in rows:
        loaded.model.zero_grad()
        encoded = loaded.encoder.batch([row])
        logits = loaded.model(**encoded.model_inputs).logits[0, encoded.answers.positions]
        nn.functional.cross_entropy(logits, encoded.answers.targets).backward()
        total = [t + p.grad**2 / len(rows) for t, p in zip(total, parameters, strict=True)]  # type: ignore[operator]
    return total


def test_mmunlearner_masks_by_fisher_of_single_rows(lively: LoadedModel) -> None:
    row = Row("mmunlearner", ("method.threshold=2", "method.retain_weight=3", 'training.parts=["language"]'), full=True)
    method, model = row.prepared(lively, FORGET, RETAIN)
    parameters = [p for p in model.parameters() if p.requires_grad]
    forget, retain = (slow_fisher(lively, rows, parameters) for rows in (FORGET, RETAIN))
    for mask, f, r in zip(method.masks, forget, retain, strict=True):  # type: ignore[attr-defined]
        # Where the ratio is within rounding of the threshold, either answer is right.
        sure = ((f / r - 2).abs() > 1e-3) & (f > 0)
        assert torch.equal(mask[sure], (f / r >= 2)[sure]) and 0 < mask.float().mean() < 1 and not mask[f == 0].any()
    model.zero_grad()
    method.loss(model, STEP).total.backward()
    got = [p.grad.clone() for p in parameters]  # type: ignore[union-attr]
    for rows, weight in ((FORGET, -1.0), (RETAIN, 3.0)):
        model.zero_grad()
        for each in rows:
            encoded = lively.encoder.batch([each])
            (nn.functional.cross_entropy(answer_logits(model, encoded), encoded.answers.targets) / len(rows)).backward()
        masks = method.masks if weight < 0 else [torch.ones(())] * len(got)  # type: ignore[attr-defined]
        got = [g - weight * m * p.grad for g, m, p in zip(got, masks, parameters, strict=True)]  # type: ignore[operator]
    assert all(rest.abs().max() < 1e-4 for rest in got)


def test_mmunlearner_looks_without_dropout_and_leaves_the_mode_as_it_was(lively: LoadedModel) -> None:
    model = unfreeze(lively.model, ["projector"]).train()  # which rows without pictures do not pass
    method = resolve(method="mmunlearner").build_method()
    method.prepare(model, Context(lively.encoder, FORGET, RETAIN, 0, torch.device("cpu")))
    assert model.training


def test_mmunlearner_without_a_weight_to_ascend_at(random_model: LoadedModel) -> None:
    with pytest.raises(RunError, match=r"(?s)no weight matters more.*found: none of.*fix: lower method.threshold"):
        fit(random_model, FORGET, RETAIN, Row("mmunlearner", ("method.threshold=1e30",)).config)


# -- MANU -----------------------------------------------------------------------------------------------------------------


def test_importance_by_hand() -> None:
    """One neuron: 3 and -1 with pictures, 0.05 and 0 without; threshold 0.1."""
    multi, text = (Moments.of(torch.tensor(z)[:, None], 0.1) for z in ([3.0, -1.0], [0.05, 0.0]))
    magnitude = (2 - 0.025) / (2 + 0.025)
    frequency = 1.0  # always active against never
    variance = math.sqrt(4.0 + 0.025**2)  # of 3 and -1 around 1, of 0.05 and 0 around 0.025
    rms = math.sqrt((5 - 0.00125) / (5 + 0.00125))
    got = importance(multi, text)
    assert got is not None and got.item() == pytest.approx(magnitude + frequency + variance + rms)
    assert importance(None, None) is None


def test_a_side_that_never_ran_is_silent() -> None:
    z = torch.tensor([[1.0], [3.0]])
    got = importance(Moments.of(z, 0.1), None)
    assert got is not None and got.item() == pytest.approx(1 + 1 + 1 + 1)  # contrasts are whole, the deviation is 1


def test_moments_of_parts_are_those_of_the_whole() -> None:
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    joined, whole = Moments.of(z[:2], 0.1).joined(Moments.of(z[2:], 0.1)), Moments.of(z, 0.1)
    assert torch.allclose(joined.means, whole.means) and joined.tokens == whole.tokens == 7


def test_the_highest_scores_of_all_blocks_are_chosen() -> None:
    chosen = choose([torch.tensor([1.0, 9.0, 2.0]), torch.tensor([8.0, 7.0]), torch.tensor([0.0])], share=0.5)
    assert [each.tolist() for each in chosen] == [[1], [0, 1], []]


@torch.no_grad()
def slow_neurons(loaded: LoadedModel, row: Any, block: MLP) -> torch.Tensor | None:
    """A block's neurons for one row: recomputed from what goes into it, where they count."""
    seen: list[torch.Tensor] = []
    parent = loaded.model.get_submodule(block.name)
    hook = parent.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    encoded = loaded.encoder.batch([row])
    loaded.model(**encoded.model_inputs)
    hook.remove()
    if not seen:
        return None
    if block.part == "vision":
        return parent.activation_fn(parent.fc1(seen[0])).flatten(0, 1)
    x = seen[0][0, encoded.answers.positions]
    return parent.act_fn(parent.gate_proj(x)) * parent.up_proj(x)


def test_manu_prunes_what_a_direct_computation_says(lively: LoadedModel) -> None:
    blocks = feed_forward(lively.model, ["vision", "language"])
    scores = []
    for block in blocks:
        sides = []
        for rows in (FORGET, RETAIN):
            multi = [slow_neurons(lively, row, block) for row in rows if row.images]
            text = [slow_neurons(lively, replace(row, images=()), block) for row in rows]
            m = torch.cat([z for z in multi if z is not None]).double()
            t = torch.cat([z for z in text if z is not None]).double() if block.part == "language" else torch.zeros_like(m[:1])
            total = (m.abs().mean(0) - t.abs().mean(0)).abs() / (m.abs().mean(0) + t.abs().mean(0) + 1e-8)
            total += ((m.abs() > 0.1).double().mean(0) - (t.abs() > 0.1).double().mean(0)).abs() / (
                (m.abs() > 0.1).double().mean(0) + (t.abs() > 0.1).double().mean(0) + 1e-8
            )
            total += (m.var(0, unbiased=False) + t.var(0, unbiased=False)).sqrt()
            squares = (m**2).mean(0), (t**2).mean(0)
            total += ((squares[0] - squares[1]).abs() / (squares[0] + squares[1] + 1e-8)).sqrt()
            sides.append(total)
        scores.append(sides[0] / (sides[1] + 1e-8))
    before = {block.name: block.down.weight.clone() for block in blocks}
    method = resolve(None, ["method.share=0.1"], method="manu").build_method()
    method.prepare(lively.model, Context(lively.encoder, FORGET, RETAIN, 0, torch.device("cpu")))
    for part, count in (("vision", 154), ("language", 320)):  # a tenth of 3 x 512 and of 5 x 640
        places = [i for i, block in enumerate(blocks) if block.part == part]
        best = torch.cat([scores[i] for i in places]).topk(count).values.min()
        for i in places:
            block, pruned = blocks[i], set(method.pruned[blocks[i].name].tolist())
            assert pruned == {j for j, value in enumerate(scores[i].tolist()) if value >= best - 1e-6}
            assert pruned == {j for j in range(block.width) if not block.down.weight[:, j].any()}
            kept = [j for j in range(block.width) if j not in pruned]
            assert torch.equal(block.down.weight[:, kept], before[block.name][:, kept])


def test_manu_that_would_prune_nothing(random_model: LoadedModel) -> None:
    before = random_model.model.state_dict()["model.language_model.layers.0.mlp.down_proj.weight"].clone()
    with pytest.raises(RunError, match=r"(?s)no neuron of the language part.*fix: raise method.share"):
        fit(random_model, FORGET, RETAIN, resolve(None, ["method.share=1e-5"], method="manu"))
    assert torch.equal(random_model.model.state_dict()["model.language_model.layers.0.mlp.down_proj.weight"], before)


def test_manu_leaves_the_vision_tower_alone_where_no_picture_was_shown(random_model: LoadedModel) -> None:
    method = resolve(method="manu").build_method()
    texts = [tuple(row for row in rows if not row.images) for rows in (FORGET, RETAIN)]
    method.prepare(random_model.model, Context(random_model.encoder, *texts, 0, torch.device("cpu")))
    assert method.pruned and all("language_model" in name for name in method.pruned)


# -- MIP-Editor -----------------------------------------------------------------------------------------------------------


def slow_scores(loaded: LoadedModel, row: Any, blocks: list[MLP], path: dict[int, int], place: int, frames: int) -> torch.Tensor:
    """Equations 4 and 6, frame by frame on one row: neurons are replaced by scaled ones, gradients are taken at these."""
    encoded = loaded.encoder.batch([row])
    language = blocks[place].part == "language"
    at = encoded.answers.positions if language else slice(None)
    clean: dict[int, torch.Tensor] = {}

    def run(change: Any) -> torch.Tensor:
        hooks = [block.down.register_forward_pre_hook(lambda _, x, i=i: change(i, x[0])) for i, block in enumerate(blocks)]
        log_p = loaded.model(**encoded.model_inputs).logits[0, encoded.answers.positions].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        log_p = log_p[range(len(log_p)), encoded.answers.targets]
        return log_p.exp().sum() if language else log_p.sum()

    with torch.no_grad():
        run(lambda i, x: clean.__setitem__(i, x[0, at].clone()))
    total = torch.zeros_like(clean[place])
    for k in range(1, frames + 1):
        scaled: dict[int, torch.Tensor] = {}

        def change(i: int, x: torch.Tensor, scaled: dict[int, torch.Tensor] = scaled, k: int = k) -> tuple[torch.Tensor] | None:
            if i != place and i not in path:
                return None
            x = x.clone()
            scaled[i] = (k / frames * clean[i]).requires_grad_()
            for j in range(blocks[i].width) if i == place else [path[i]]:
                x[0, at, j] = scaled[i][:, j]
            return (x,)

        slopes = dict(zip((*path, place), torch.autograd.grad(run(change), [scaled[i] for i in (*path, place)]), strict=True))
        joint = slopes[place] + sum(slopes[i][:, [j]] for i, j in path.items())
        total += (joint if language else joint**2) / frames
    return ((clean[place] + sum(clean[i][:, [j]] for i, j in path.items())) * total).sum(0)


@pytest.mark.parametrize(("part", "row"), [("language", FORGET[1]), ("vision", FORGET[0]), ("language", FORGET[2])])
def test_paths_are_those_of_a_direct_computation(lively: LoadedModel, part: str, row: Any) -> None:
    blocks = feed_forward(lively.model, [part])[:3]
    encoder, frames = lively.encoder, 3
    one, copies = (encoder.collate([encoder.row(row)] * n) for n in (1, frames))
    found = locate(lively.model, one, copies, blocks, top_k=4)
    path: dict[int, int] = {}
    for place in range(3):
        expected = slow_scores(lively, row, blocks, path, place, frames)
        assert torch.allclose(expected[found[place]], expected.topk(4).values, rtol=1e-3)
        path[place] = int(found[place][0])
    assert sorted(found) == [0, 1, 2] and not any(block.down._forward_pre_hooks for block in blocks)


def test_paths_leave_out_what_the_answer_does_not_depend_on(lively: LoadedModel) -> None:
    lively.model.model.config.vision_feature_layer = -2  # as in LLaVA 1.5: the tower's last layer runs for nothing
    one = lively.encoder.batch(FORGET[:1])
    assert sorted(locate(lively.model, one, one, feed_forward(lively.model, ["vision"]), top_k=1)) == [0, 1]


def test_path_scores_are_integrals_of_slopes(lively: LoadedModel) -> None:
    """With one frame and no path the score of a neuron is its activation times the slope there: checked by a finite difference."""
    blocks, row = feed_forward(lively.model, ["language"]), FORGET[1]
    lively.model.double()
    encoded = lively.encoder.batch([row])
    positions = encoded.answers.positions
    clean: list[torch.Tensor] = []

    def p(nudge: torch.Tensor | None) -> float:
        def change(_: Any, inputs: Any) -> Any:
            clean.append(inputs[0][0, positions].clone())
            if nudge is None:
                return None
            x = inputs[0].clone()
            x[0, positions, 7] += nudge
            return (x,)

        hook = blocks[2].down.register_forward_pre_hook(change)
        with torch.no_grad():
            log_p = lively.model(**encoded.model_inputs).logits[0, positions].log_softmax(-1)
        hook.remove()
        return float(log_p[range(len(positions)), encoded.answers.targets].exp().sum())

    p(None)
    z = clean[0]
    step = 1e-2
    slope = [(p(step * one) - p(-step * one)) / (2 * step) for one in torch.eye(len(positions), dtype=torch.float64)]
    scores = path_scores(lively.model, encoded, blocks, {2: z}, {}, 2)
    assert scores is not None
    # Parts of the model work in single precision whatever they are given.
    assert scores[7].item() == pytest.approx(float((z[:, 7] * torch.tensor(slope)).sum()), rel=1e-2)


def test_mip_editor_trains_the_neurons_it_took_out_and_no_others(lively: LoadedModel) -> None:
    row = Row("mip_editor", ("method.rows=2", "method.frames=2", "method.top_k=2"), full=True)
    before = {name: value.clone() for name, value in lively.model.state_dict().items()}
    method, model = row.prepared(lively, FORGET, RETAIN)
    chosen: dict[str, torch.Tensor] = method.chosen  # type: ignore[attr-defined]
    blocks = {block.name: block for block in feed_forward(model, ["language", "vision"])}
    for name, neurons in chosen.items():
        assert 2 <= len(neurons) <= 4 and not blocks[name].down.weight[:, neurons].any()
    method.loss(model, STEP).total.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
            if parameter.requires_grad:
                parameter *= 0.999  # as an optimizer's decay would
    after = method.finalize(model).state_dict()
    edited = {f"{name}.{owner}" for name in chosen for owner in ("down_proj.weight", "gate_proj.weight", "up_proj.weight")}
    edited |= {f"{name}.{owner}" for name in chosen for owner in ("fc2.weight", "fc1.weight", "fc1.bias")}
    assert {name for name in before if not torch.equal(before[name], after[name])} <= edited
    for name, neurons in chosen.items():
        old, new = (state[f"{name}.{'down_proj' if 'language' in name else 'fc2'}.weight"] for state in (before, after))
        assert {int(j) for j in (old != new).any(0).nonzero()} == set(neurons.tolist())
    assert any(after[f"{name}.down_proj.weight"][:, neurons].any() for name, neurons in chosen.items() if "language" in name)


def test_mip_editor_sends_every_row_its_own_way(lively: LoadedModel) -> None:
    method, model = Row("mip_editor", ("method.rows=1", "method.frames=1", "method.scale=2"), full=True).prepared(lively, FORGET, RETAIN)
    u = method._directions(FORGET, torch.zeros(1, 192))  # type: ignore[attr-defined]
    assert torch.allclose(u.norm(dim=-1), torch.ones(4)) and torch.equal(u[1], method._directions(FORGET[1:2], u)[0])  # type: ignore[attr-defined]
    assert len({tuple(each.tolist()) for each in u}) == 4
    layer, means = 7 * 5 // 32, []
    for row, direction in zip(FORGET, u, strict=True):
        encoded = lively.encoder.batch([row])
        with torch.no_grad():
            now, was = (
                m(**encoded.model_inputs, output_hidden_states=True).hidden_states[layer + 1][0, encoded.answers.positions]
                for m in (model, method.context.reference_copy)
            )
        means.append((now - 2 * was.norm(dim=-1, keepdim=True) * direction).square().sum(-1).mean())
    assert method.loss(model, STEP).parts["forget"].item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-4)


def test_mip_editor_without_a_neuron_to_edit(random_model: LoadedModel) -> None:
    texts = tuple(row for row in FORGET if not row.images)
    with pytest.raises(RunError, match=r"(?s)no influential neuron was found.*set method.parts to language"):
        fit(random_model, texts, RETAIN, Row("mip_editor", ('method.parts=["vision"]',)).config)


# -- SMFA -----------------------------------------------------------------------------------------------------------------


def test_conflicts_entry_by_entry() -> None:
    generator = torch.Generator().manual_seed(0)
    forget, anchor = (torch.randn(3, 4, generator=generator) for _ in range(2))
    for k in (0.0, 0.5, 2.0):
        rho = math.sqrt(sum(v**2 for v in forget.flatten().tolist())) / math.sqrt(sum(v**2 for v in anchor.flatten().tolist()))
        expected = [
            [bool(f * a < 0 and k * rho * abs(a) < abs(f)) for f, a in zip(fs, as_, strict=True)]
            for fs, as_ in zip(forget.tolist(), anchor.tolist(), strict=True)
        ]
        assert conflicts(forget, anchor, k).tolist() == expected
    assert not conflicts(forget, torch.zeros(3, 4), 0.0).any()


def test_smfa_adds_what_sculpting_leaves(lively: LoadedModel) -> None:
    before = {name: value.clone() for name, value in lively.model.state_dict().items()}
    method, model = Row("smfa", ("method.k=1",)).prepared(lively, FORGET, RETAIN)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    name = adapted_modules(model)[4]
    layer = model.get_base_model().get_submodule(name)
    forget, anchor = (layer.lora_B[each].weight @ layer.lora_A[each].weight * layer.scaling[each] for each in ("default", "anchor"))
    dropped = (forget * anchor < 0) & (forget.norm() / anchor.norm() * anchor.abs() < forget.abs())
    expected = before[f"{name}.weight"] + forget.masked_fill(dropped, 0.0)
    after = method.finalize(model).state_dict()
    assert 0.1 < dropped.float().mean() < 0.9 and torch.allclose(after[f"{name}.weight"], expected, atol=1e-6)
    assert set(after) == set(before)


def test_smfa_trains_two_adapters_that_know_nothing_of_each_other(lively: LoadedModel) -> None:
    method, model = Row("smfa").prepared(lively, FORGET, RETAIN)
    model.zero_grad()
    both = method.loss(model, STEP)
    both.total.backward()
    slopes = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
    assert any("anchor" in name for name in slopes) and any("default" in name for name in slopes)
    model.zero_grad()
    method.loss(model, StepBatch(0, FORGET, ())).total.backward()  # without retain rows the anchor rests
    assert not any(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if "anchor" in name)


def test_smfa_that_drops_nothing_is_told(random_model: LoadedModel) -> None:
    with pytest.raises(RunError, match=r"(?s)sculpting dropped nothing.*fix: lower method.k"):
        fit(random_model, FORGET, RETAIN, Row("smfa", ("method.k=1e9",)).config)


# -- ICU ------------------------------------------------------------------------------------------------------------------


def test_icu_asks_every_question_behind_its_instruction(random_model: LoadedModel) -> None:
    config = resolve(None, ["method.instruction=privacy"], method="icu")
    before = {name: value.clone() for name, value in random_model.model.state_dict().items()}
    fitted = fit(random_model, FORGET, RETAIN, config)
    assert all(torch.equal(before[name], value) for name, value in fitted.loaded.model.state_dict().items())
    plain = random_model.encoder
    for side in (fitted.loaded.encoder.prompts(FORGET), fitted.loaded.encoder.batch(FORGET)):
        texts = plain.tokenizer.batch_decode(side.model_inputs["input_ids"])
        assert all(INSTRUCTIONS["privacy"] in text for text in texts)
    # What is generated and scored is what the plain model says to the instructed question.
    instructed = generate(random_model, FORGET, max_new_tokens=4, encode=lambda rows: plain.prompts(rows, INSTRUCTIONS["privacy"]))
    assert generate(fitted.loaded, FORGET, max_new_tokens=4) == instructed
    encoded = plain.batch(FORGET[:1], INSTRUCTIONS["privacy"])
    with torch.no_grad():
        nll = nn.functional.cross_entropy(answer_logits(random_model.model, encoded), encoded.answers.targets)
    assert score(fitted.loaded, FORGET[:1])[0].loss == pytest.approx(nll.item(), rel=1e-5)


def test_icu_can_perturb_pictures(random_model: LoadedModel) -> None:
    encoder = fit(random_model, FORGET, RETAIN, resolve(None, ["method.noise.kind=uniform", "seed=4"], method="icu")).loaded.encoder
    assert isinstance(encoder, InContext)
    clean, noisy = (each.batch(FORGET).model_inputs["pixel_values"] for each in (random_model.encoder, encoder))
    seeds = [derive_seed(4, "icu", row.images[0].fingerprint, 0) for row in FORGET if row.images]
    assert torch.equal(noisy, perturb(clean, NoiseConfig(), seeds))


def test_icu_needs_an_instruction() -> None:
    with pytest.raises(ConfigError, match=r"method\.instruction"):
        resolve(None, ['method.instruction=""'], method="icu")
