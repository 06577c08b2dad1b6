"""VGID on the embedded base: what teacher and student see, what the loss is, and that the base stays what it was."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from vgid.config import RunConfig, load_config
from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.instructions import INSTRUCTIONS
from vgid.methods.base import Context, StepBatch
from vgid.methods.vgid.method import VGID, VGIDConfig, guess_bound, guess_penalty, held_down
from vgid.models.adapters import attach_lora, reference
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.pictures import find_pictures
from vgid.perturbation import NoiseConfig, perturb, perturb_batch
from vgid.seeds import derive_seed
from vgid.settings import AdapterConfig
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import tiny_path
from vgid.training.fit import fit

PAPER: dict[str, Any] = {
    "answers": ("recorded",),
    "mask_names": False,
    "guess_penalty": 0.0,
    "hidden_state_weight": 0.0,
    "adversary": None,
}
"""Only what the paper has."""


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    world = World(seed=1, people=3, forget=1)
    return list(training_rows(Camera(96), [*world.forget, *world.retain], 0))


@pytest.fixture(scope="module")
def mixed(rows: list[Example]) -> tuple[Example, ...]:
    """Two rows with a picture, two without."""
    seen, unseen = [row for row in rows if row.images], [row for row in rows if not row.images]
    return (seen[0], unseen[0], seen[15], unseen[15])


@pytest.fixture
def tiny() -> LoadedModel:
    return load_model(tiny_path())


def prepared(loaded: LoadedModel, config: VGIDConfig, forget: Sequence[Example]) -> tuple[VGID, torch.nn.Module]:
    model = attach_lora(loaded.model, AdapterConfig(), seed=0)
    method = VGID(config)
    method.prepare(model, Context(Encoder(loaded.processor), forget, (), 5, torch.device("cpu")))
    return method, model


def test_teacher_sees_noise_and_instruction_and_the_student_neither(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    method, _ = prepared(tiny, VGIDConfig(answers=("recorded",)), mixed)
    encoder, decode = method.context.encoder, tiny.processor.tokenizer.batch_decode
    teacher, student = method.teacher_batch(mixed, step=3), encoder.batch(mixed)
    for text, plain in zip(decode(teacher.model_inputs["input_ids"]), decode(student.model_inputs["input_ids"]), strict=True):
        assert INSTRUCTIONS["forget"] in text and INSTRUCTIONS["forget"] not in plain
    names = [example.question for example in mixed if not example.images]
    assert not any(question in text for question in names for text in decode(teacher.model_inputs["input_ids"]))
    assert all(any(question in text for text in decode(student.model_inputs["input_ids"])) for question in names)
    # One picture for each row that has one, perturbed by a seed of (seed, step, picture); the student's is clean.
    seeds = [derive_seed(5, 3, example.images[0].fingerprint, 0) for example in mixed if example.images]
    clean = student.model_inputs["pixel_values"]
    assert clean.shape[0] == 2
    assert torch.equal(teacher.model_inputs["pixel_values"], perturb(clean, NoiseConfig(), seeds))
    # Both are compared on the same answer tokens, though their prompts differ in length.
    assert torch.equal(teacher.answers.targets, student.answers.targets)
    assert not torch.equal(teacher.answers.positions, student.answers.positions)


def test_noise_is_drawn_anew_unless_configured_otherwise(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    method, _ = prepared(tiny, VGIDConfig(answers=("recorded",)), mixed)
    one, two = (method.teacher_batch(mixed, step).model_inputs["pixel_values"] for step in (0, 1))
    assert not torch.equal(one, two)
    fixed = VGID(VGIDConfig(**PAPER, redraw=False))
    fixed.prepare(tiny.model, method.context)
    one, two = (fixed.teacher_batch(mixed, step).model_inputs["pixel_values"] for step in (0, 1))
    assert torch.equal(one, two)


def test_pixel_space_noise_passes_through_the_processor(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    method, _ = prepared(tiny, VGIDConfig(answers=("recorded",), noise=NoiseConfig(space="pixel")), mixed)
    pixels = method.teacher_batch(mixed, step=0).model_inputs["pixel_values"]
    # U[0, 1) in pixel space is U[-1, 1) after a processor with mean and deviation 0.5, up to 8 bits.
    assert pixels.min() < -0.98 and pixels.max() > 0.98 and abs(pixels.mean().item()) < 0.02


def test_without_noise_and_instruction_there_is_nothing_to_learn(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    config = VGIDConfig(**PAPER, noise=NoiseConfig(kind="none"), instruction=None, retain_loss="kl")
    method, model = prepared(tiny, config, mixed)
    out = method.loss(model.eval(), StepBatch(0, mixed, mixed))
    # A fresh adapter is the base itself, so both divergences vanish.
    assert out.parts["forget"].abs() < 1e-6 and out.parts["retain"].abs() < 1e-6


def test_forget_loss_by_the_plain_formula(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    """E_f[mean_t KL(p_T || p)], row by row through full logits, against the gathered batch."""
    method, model = prepared(tiny, VGIDConfig(**PAPER, beta=0.0, alpha=3.0), mixed)
    out = method.loss(model.eval(), StepBatch(2, mixed, ()))
    means = []
    for example in mixed:
        teacher, student = method.teacher_batch((example,), step=2), method.context.encoder.batch([example])
        with torch.no_grad(), model.disable_adapter():
            p = model(**teacher.model_inputs).logits[0, teacher.answers.positions].log_softmax(-1)
            q = model(**student.model_inputs).logits[0, student.answers.positions].log_softmax(-1)
        means.append((p.exp() * (p - q)).sum(-1).mean())
    assert out.parts["forget"].item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-4)
    assert out.total.item() == pytest.approx(3.0 * out.parts["forget"].item())


def test_a_recorded_token_may_be_as_likely_as_the_smaller_chance_squared() -> None:
    """Eight tokens, three recorded ones. With instruction and without they have 1/2 and 3/4, 1/2 and 1/4, and all in both: the bounds are
    1/4, a blind guess of 1/8, and all."""
    instructed = torch.tensor([[1 / 2, *[1 / 14] * 7], [1 / 2, *[1 / 14] * 7], [1.0, *[0.0] * 7]]).log()
    plain = torch.tensor([[3 / 4, *[1 / 28] * 7], [1 / 4, *[3 / 28] * 7], [1.0, *[0.0] * 7]]).log()
    targets = torch.tensor([0, 0, 0])
    bound = guess_bound([instructed, plain], targets)
    assert bound.exp().tolist() == pytest.approx([1 / 4, 1 / 8, 1.0])
    assert guess_bound([instructed], targets).exp().tolist() == pytest.approx([1 / 4, 1 / 4, 1.0])
    student = torch.tensor([[1 / 2, *[1 / 14] * 7], [1 / 16, *[15 / 112] * 7], [1.0, *[0.0] * 7]]).log()
    assert guess_penalty(student, targets, bound).tolist() == pytest.approx([math.log(2), 0.0, 0.0], abs=1e-6)


def test_in_a_target_the_recorded_token_keeps_its_bound_and_the_others_their_proportions() -> None:
    """1/2, 3/8 and 1/8: held down to 1/5, the others share 4/5 as 3 to 1. What is below its bound, or sure, stays."""
    teacher = torch.tensor([[1 / 2, 3 / 8, 1 / 8], [1 / 8, 3 / 8, 1 / 2], [1.0, 0.0, 0.0]]).log()
    found = held_down(teacher, torch.tensor([0, 0, 0]), torch.tensor([1 / 5, 1 / 5, 1.0]).log()).softmax(dim=-1)
    assert found.flatten().tolist() == pytest.approx([1 / 5, 3 / 5, 1 / 5, 1 / 8, 3 / 8, 1 / 2, 1.0, 0.0, 0.0])


def test_guesses_that_an_instruction_makes_likelier_are_held_down(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    """The forget loss with a guess penalty, row by row through full logits, with the base asked with the instruction and without."""
    config = VGIDConfig(**{**PAPER, "guess_penalty": 0.5}, beta=0.0)
    method, model = prepared(tiny, config, mixed)
    shaken(model)
    out = method.loss(model, StepBatch(2, mixed, ()))
    means = []
    for example in mixed:
        instructions = (config.instruction_text, None)
        views = [perturb_batch(method.context.encoder, (example,), config.noise, seed=(5, 2), instruction=each) for each in instructions]
        student = method.context.encoder.batch([example])
        with torch.no_grad():
            said = model(**student.model_inputs).logits[0, student.answers.positions].log_softmax(-1)
            with model.disable_adapter():
                chances = [model(**each.model_inputs).logits[0, each.answers.positions].log_softmax(-1) for each in views]
        values = []
        for place, token in enumerate(student.answers.targets.tolist()):
            bound = max(2 * min(chance[place, token].item() for chance in chances), -math.log(said.shape[-1]))
            p = chances[0][place].exp()
            if p[token] > math.exp(bound):
                p = p * (1 - math.exp(bound)) / (1 - p[token])
                p[token] = math.exp(bound)
            kl = (p * (p.log() - said[place])).sum()
            values.append(kl.item() + 0.5 * max(0.0, said[place, token].item() - bound))
        means.append(sum(values) / len(values))
    assert out.parts["forget"].item() == pytest.approx(sum(means) / len(means), rel=1e-3)


def test_states_follow_the_teachers_wherever_both_read_the_same(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    """lambda E_f[mean over layers and positions of |h - h_T|^2 / |h_T|^2], row by row, position by position."""
    method, model = prepared(tiny, VGIDConfig(**{**PAPER, "hidden_state_weight": 3.0}, beta=0.0, alpha=1.0), mixed)
    shaken(model)
    without = VGID(VGIDConfig(**PAPER, beta=0.0, alpha=1.0))
    without.prepare(model, method.context)
    step = StepBatch(2, mixed, ())
    found = (method.loss(model, step).total - without.loss(model, step).total).item()
    layers = [module for name, module in model.named_modules() if name.endswith(tuple(f"language_model.layers.{n}" for n in range(4)))]
    assert len(layers) == 4  # of five: the last one's are what the logits are made of
    means = []
    for example in mixed:
        teacher, student = method.teacher_batch((example,), step=2), method.context.encoder.batch([example])
        with torch.no_grad():
            ours = outputs(model, layers, student)
            with model.disable_adapter():
                theirs = outputs(model, layers, teacher)
        same = 1  # positions, from the back, at which both read the same word; the last word predicts nothing
        one, other = student.model_inputs["input_ids"][0].tolist(), teacher.model_inputs["input_ids"][0].tolist()
        while one[-1 - same] == other[-1 - same] and one[-1 - same] != tiny.processor.image_token_id:
            same += 1
        assert same > len(tiny.encoder.tokenizer(example.question)["input_ids"])  # the whole question, and the answer
        apart = [
            ((a[0, -k] - b[0, -k]).square().sum() / b[0, -k].square().sum()).item()
            for a, b in zip(ours, theirs, strict=True)
            for k in range(2, same + 1)
        ]
        means.append(sum(apart) / len(apart))
    assert found == pytest.approx(3.0 * sum(means) / len(means), rel=1e-3)


def test_states_of_packed_rows_are_those_of_plain_ones(tiny: LoadedModel, rows: list[Example]) -> None:
    together = tuple(row for row in rows if row.images == rows[0].images)[:3]
    config = VGIDConfig(**{**PAPER, "hidden_state_weight": 2.0}, beta=0.0)
    method, model = prepared(tiny, config, together)
    shaken(model)
    packed = VGID(config)
    packed.prepare(model, replace(method.context, packing=Style(4)))
    losses = [each.loss(model, StepBatch(0, together, ())).total.item() for each in (method, packed)]
    assert len(together) == 3 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def shaken(model: torch.nn.Module) -> None:
    """An adapter that does something."""
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    model.eval()


def outputs(model: Any, layers: list[torch.nn.Module], batch: Batch) -> list[torch.Tensor]:
    """What layers give out, `[1, s, h]` each."""
    seen: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)) for layer in layers]
    model(**batch.model_inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_released_script_compares_all_positions(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    method: Any = load_config("released").build_method()
    model = attach_lora(tiny.model, AdapterConfig(), seed=0).eval()
    method.prepare(model, Context(Encoder(tiny.processor), mixed, mixed, 5, torch.device("cpu")))
    method.config = method.config.model_copy(update={"teacher_precision": "same"})
    forget = method.loss(model, StepBatch(0, mixed, ())).parts
    teacher, student = method._teacher_batch(mixed, 0), method.context.encoder.batch(mixed)
    with torch.no_grad():
        p, q = (model(**batch.model_inputs).logits.log_softmax(-1) for batch in (teacher, student))
    # torch's own "batchmean": summed over positions and vocabulary, divided by the rows.
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert forget["forget"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_teachers_own_answers_are_sampled_once_and_repeatably(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    state = torch.get_rng_state()
    method, model = prepared(tiny, VGIDConfig(answers=("teacher",)), mixed)
    said = method._answers(model, StepBatch(0, mixed, ()))
    assert said == method._answers(model, StepBatch(9, mixed, ())) and all(said.values())
    again = VGID(VGIDConfig(answers=("teacher",)))
    again.prepare(model, method.context)
    assert again._own == method._own and torch.equal(torch.get_rng_state(), state)


def test_students_own_answers_follow_the_step(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    method, model = prepared(tiny, VGIDConfig(answers=("student",)), mixed)
    one, again = (method._answers(model, StepBatch(0, mixed, ())) for _ in range(2))
    assert one == again and method.loss(model, StepBatch(0, mixed, ())).total.isfinite()


SHORT = ["training.steps=3", "training.forget_batch=3", "training.retain_batch=3", "validation.every=0", "method.replay.narrow=false"]


def trained(rows: list[Example], *overrides: str) -> tuple[torch.nn.Module, RunConfig]:
    config = load_config(None, [*SHORT, *overrides])
    half = len(rows) // 3
    return fit(load_model(tiny_path()), rows[:half], rows[half:], config).loaded.model, config


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_same_seed_same_weights_and_the_base_stays_the_base(rows: list[Example], mixed: tuple[Example, ...]) -> None:
    one, _ = trained(rows)
    two, _ = trained(rows)
    three, _ = trained(rows, "seed=1")
    first, second, other = weights(one), weights(two), weights(three)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    fresh = load_model(tiny_path())
    batch = Encoder(fresh.processor).batch(mixed)
    with reference(one) as base, torch.no_grad():
        assert torch.equal(answer_logits(base, batch), answer_logits(fresh.model, batch))
    assert not torch.equal(answer_logits(one, batch), answer_logits(fresh.model, batch))


def test_full_parameters_need_a_copy_and_train_only_the_named_parts(rows: list[Example]) -> None:
    model, _ = trained(rows, "adapter=null", "training.learning_rate=1e-4")
    before, after = weights(load_model(tiny_path()).model), weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision_tower" in name for name in changed)


def test_the_base_is_asked_once_about_changed_and_plain_pictures(tiny: LoadedModel, mixed: tuple[Example, ...]) -> None:
    """A step with replay rows, with pictures embedded ahead against pictures that every pass embeds."""
    model = attach_lora(tiny.model, AdapterConfig(), seed=0)
    replayed = tuple(replace(row, id=f"replay-{row.id}", tags=("replay", "seen")) for row in mixed)
    calls, losses = [], []
    hook = tiny.model.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    for pictures in (None, find_pictures(model, tiny.encoder, mixed)):
        method = VGID(VGIDConfig(adversary=None))
        context = Context(tiny.encoder, mixed, replayed, 5, torch.device("cpu"), packing=Style(4), pictures=pictures)
        method.prepare(model, context)
        calls.clear()
        losses.append(method.loss(model, StepBatch(0, mixed, replayed)).total.item())
        assert calls.count(False) == 2  # rows with pictures, and those without
    hook.remove()
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
