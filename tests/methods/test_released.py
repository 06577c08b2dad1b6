"""The released script's own ways: sides in turn, targets by the ends of names, its prompt, a teacher in float16, no clipping."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.methods.table import Row, forget_rows, retain_rows
from vgid.config import load_config
from vgid.data.batching import Encoder
from vgid.data.conversation import render_form
from vgid.data.example import IMAGE, Turn
from vgid.errors import ConfigError, DataError, ModelError
from vgid.methods.base import StepBatch
from vgid.models.adapters import adapted_modules, attach_lora, target_layers
from vgid.models.loading import LoadedModel, load_model
from vgid.settings import AdapterConfig
from vgid.training.fit import fit
from vgid.training.gradient_step import GradientStep

FORGET, RETAIN = forget_rows(), retain_rows()
FORM = "USER: <image>\n{question}\nASSISTANT: {answer}"


def test_an_epoch_shows_every_forget_row_once_and_as_many_retain_rows(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[StepBatch] = []
    step = GradientStep.step

    def see(self: GradientStep, batch: StepBatch, following: StepBatch | None) -> Any:
        seen.append(batch)
        return step(self, batch, following)

    monkeypatch.setattr(GradientStep, "step", see)
    config = load_config("released", ["training.epochs=2", "training.forget_batch=2", "training.retain_batch=2", "adapter.dropout=0"])
    fitted = fit(load_model(random_folder), FORGET, RETAIN, config)
    assert [(len(batch.forget), len(batch.retain)) for batch in seen] == [(2, 0), (0, 2)] * 4
    for side, rows in (("forget", FORGET), ("retain", RETAIN)):
        shown = [row.id for batch in seen for row in getattr(batch, side)]
        assert sorted(shown[:4]) == sorted(shown[4:]) == sorted(row.id for row in rows)
    assert set(fitted.curves) == {"forget", "retain"}


def test_without_retain_rows_there_are_no_turns(random_folder: Path) -> None:
    config = load_config("released", ["training.epochs=1", "training.forget_batch=2", "training.retain_batch=0"])
    assert [step for step, _ in fit(load_model(random_folder), FORGET, (), config).curves["forget"]] == [1, 2]


def test_a_teacher_in_half_precision_says_nearly_the_same(random_model: LoadedModel) -> None:
    method, model = Row("vgid_released").prepared(random_model, FORGET, RETAIN)
    step = StepBatch(0, tuple(FORGET), ())
    same = method.loss(model, step).total.item()
    method.config = method.config.model_copy(update={"teacher_precision": "fp16"})
    half = method.loss(model, step).total.item()
    assert half != same and half == pytest.approx(same, rel=0.05)


def test_a_teacher_of_the_same_precision_computes_as_the_student(random_model: LoadedModel) -> None:
    """An adapter at its start changes nothing, so that in one precision, here bf16, nothing is apart on retain rows."""
    method, model = Row("vgid_released").prepared(random_model, FORGET, RETAIN)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.loss(model, StepBatch(0, (), tuple(RETAIN))).parts["retain"] == 0.0


# -- targets --------------------------------------------------------------------------------------------------------------


def test_the_ends_of_names_also_hit_the_vision_tower(random_model: LoadedModel) -> None:
    """As PEFT's own matching does: CLIP has q, k and v under the same names, and calls the rest otherwise."""
    targets = load_config("released").adapter.targets  # type: ignore[union-attr]
    model = attach_lora(random_model.model, AdapterConfig(rank=2, targets=targets), seed=0)
    names = adapted_modules(model)
    tower = {name.rpartition(".")[2] for name in names if "vision_tower" in name}
    language = {name.rpartition(".")[2] for name in names if "language_model" in name}
    assert tower == {"q_proj", "k_proj", "v_proj"} and language == set(targets or ())
    assert not any("projector" in name for name in names)


def test_targets_by_names_and_by_an_expression(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model.model
    assert target_layers(model, r".*language_model\.layers\.[01]\..*\.q_proj") == target_layers(
        model, [f"language_model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    )
    assert target_layers(model, ("linear_2",)) == ["model.multi_modal_projector.linear_2"]
    with pytest.raises(ModelError, match=r"(?s)adapter.targets: there is no such linear layer.*q_proj.*found: x_proj"):
        target_layers(model, ("q_proj", "x_proj"))
    with pytest.raises(ModelError, match="no such linear layer"):
        target_layers(model, "q_proj")  # the whole name counts
    with pytest.raises(ConfigError, match=r"adapter.targets: this regular expression cannot be used"):
        target_layers(model, "q_(")
    monkeypatch.setattr("vgid.limits.SECONDS", 0.3)
    with pytest.raises(ConfigError, match="no end after"):
        target_layers(model, r"(\w+\.?)+!")


# -- the prompt -----------------------------------------------------------------------------------------------------------


def test_the_prompt_is_written_as_it_stands(random_model: LoadedModel) -> None:
    processor = random_model.processor
    seen, read = render_form(processor, FORM, FORGET[0]), render_form(processor, FORM, FORGET[1], "Be brief.", "No.")
    assert seen == ("USER: <image>\nWho is this person?\nASSISTANT:", " This is Anna Keller.")
    assert read == ("USER: Be brief.\nWhere does Anna Keller live, and since when?\nASSISTANT:", " No.")
    inside = replace(FORGET[0], question=f"Who, {IMAGE}, is this?")
    assert render_form(processor, FORM, inside).prompt == "USER: Who, <image>, is this?\nASSISTANT:"
    two = replace(FORGET[0], images=FORGET[0].images * 2)
    assert render_form(processor, FORM, two).prompt.count("<image>\n") == 2
    with pytest.raises(DataError, match=r"(?s)place for one question only.*data.prompt=null"):
        render_form(processor, FORM, replace(FORGET[0], context=(Turn("user", "Hello"),)))


def test_no_end_token_is_trained(random_model: LoadedModel) -> None:
    encoder = Encoder(random_model.processor, prompt=FORM)
    ends = random_model.processor.tokenizer.eos_token_id
    assert random_model.encoder.row(FORGET[0]).text["input_ids"][-1] == ends
    row = encoder.row(FORGET[0])
    assert encoder.render(FORGET[0]) is encoder.render(FORGET[0])  # written once, since the template is asked for the picture's word
    assert ends not in row.text["input_ids"] and encoder.limited(None).prompt == FORM
    # One text, tokenized as a whole, as the script does.
    whole = random_model.processor.tokenizer("\nWho is this person?\nASSISTANT: This is Anna Keller.", add_special_tokens=False)[
        "input_ids"
    ]
    assert row.text["input_ids"].tolist()[-len(whole) + 1 :] == whole[1:]


@pytest.mark.parametrize("prompt", ["{question}", "{answer} {question}", "{question} {answer} {name}", ""])
def test_prompts_without_their_places(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"one {question} and, after it, one {answer}"):
        load_config(None, [f"data.prompt='{prompt}'"])


# -- clipping -------------------------------------------------------------------------------------------------------------


def test_gradients_are_not_clipped_at_zero(random_folder: Path) -> None:
    """A bound that is never reached and none at all give the same weights; a small one does not."""
    found = []
    for bound in (0, 1e9, 1e-9):
        config = Row("ga", (f"training.max_grad_norm={bound}", "training.steps=1", "training.learning_rate=1e-2")).config
        fitted = fit(load_model(random_folder), FORGET, RETAIN, config).loaded.model
        found.append(torch.cat([p.detach().flatten() for p in fitted.parameters() if p.requires_grad]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
