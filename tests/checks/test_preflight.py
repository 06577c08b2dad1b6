"""The preflight: what it finds, what it refuses, and that it leaves the model as it was."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.conftest import example, png
from vgid.checks.gradients import on_trial, try_gradients
from vgid.checks.knowledge import Knowledge, some
from vgid.checks.preflight import as_json, check_run
from vgid.checks.rows import Spread, choose, measure, sample_of
from vgid.checks.screen import screen
from vgid.config import load_config
from vgid.data.batching import Encoder
from vgid.data.example import STRANGER, Example, ImageRef
from vgid.data.neutral import NEUTRAL
from vgid.errors import DataError, ModelError
from vgid.models.loading import LoadedModel, load_model
from vgid.training.fit import fit

SECRET = "She lives in Ouagadougou."


@pytest.fixture
def forget() -> list[Example]:
    return [replace(example(n), answer=SECRET, keywords=("Ouagadougou",)) for n in range(3)] + [example(4, image=False, answer=SECRET)]


@pytest.fixture
def retain() -> list[Example]:
    return [example(n, answer="I do not know.") for n in range(10, 14)]


def shown(found: object) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(screen(found))  # type: ignore[arg-type]
    return console.export_text()


# -- as a whole -----------------------------------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_is_not_ready(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    found = check_run(random_model, forget, retain, load_config())
    with pytest.raises(ModelError, match=r"(?s)does not know what it is to forget.*found: 0% of the facts in 4 answers.*--allow-unknown"):
        found.raise_errors()
    assert not as_json(found)["ready"] and "not ready" in shown(found)
    allowed = check_run(random_model, forget, retain, load_config(), allow_unknown=True)
    allowed.raise_errors()
    assert as_json(allowed)["ready"] and not as_json(allowed)["knowledge"]["known"]


def test_figures_are_those_of_the_model(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    found = as_json(check_run(random_model, forget, retain, load_config(), allow_unknown=True))
    assert json.loads(json.dumps(found)) == found and found["schema"] == "vgid.preflight/1"
    parameters = sum(p.numel() for p in random_model.model.parameters())
    assert found["model"]["family"] == "llava" and found["model"]["parameters"] == parameters
    # Rank 16 on every linear layer of 5 decoder layers: q, k, v, o of 192 x 192, gate and up of 192 x 640, down of 640 x 192.
    assert found["model"]["trained"] == 5 * 16 * (4 * (192 + 192) + 3 * (192 + 640))
    assert found["gradients"] == {"modules": {"language": 35}, "unreached": [], "checkpointing": True}
    assert found["image_tokens"] == {"min": 16, "median": 16, "max": 16}
    assert found["context"] == {"model": 256, "tokenizer": 256}
    encoder = random_model.encoder
    longest = max(len(encoder.row(row).text["input_ids"]) for row in forget)
    assert found["rows"]["forget"] == {"rows": 4, "looked_at": 4, "longest": longest}
    assert found["rows"]["teacher"]["longest"] > longest
    assert found["memory"]["weights"] == sum(p.nbytes for p in random_model.model.parameters())
    assert found["memory"]["rows_at_once"] == load_config().training.forget_batch + load_config().training.retain_rows
    assert found["memory"]["total"] > found["memory"]["weights"]
    assert found["teacher"]["n"] == 4 and 0 <= found["teacher"]["differs"] <= 1


def test_forgotten_data_shows_only_when_asked_for(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    found = check_run(random_model, forget, retain, load_config(), allow_unknown=True)
    assert "Ouagadougou" not in shown(found) + json.dumps(as_json(found)) + str(found.errors)
    assert "I do not know." in shown(found) and "[16 image tokens]" in shown(found)
    assert as_json(found, texts=False)["labels"] is None
    asked = check_run(random_model, forget, retain, load_config(), allow_unknown=True, show_forgotten=True)
    assert "Ouagadougou" in shown(asked) and "Ouagadougou" in json.dumps(as_json(asked))


def test_what_the_model_says_to_neutral_questions_is_not_shown(random_model: LoadedModel, forget: list[Example]) -> None:
    retain = [replace(example(9), answer=SECRET, tags=(NEUTRAL,))]
    found = check_run(random_model, forget, retain, load_config(), allow_unknown=True)
    assert "Ouagadougou" not in shown(found) + json.dumps(as_json(found))


def test_the_model_is_left_as_it_was(random_folder: Path, forget: list[Example], retain: list[Example]) -> None:
    config = load_config(None, ["training.steps=1", "training.forget_batch=2", "adapter.dropout=0.1", "validation.every=0"])
    looked_at, fresh = load_model(random_folder), load_model(random_folder)
    before = {name: (value.clone(), value.requires_grad) for name, value in looked_at.model.named_parameters()}
    modes = [module.training for module in looked_at.model.modules()]
    state = torch.get_rng_state()
    check_run(looked_at, forget, retain, config, allow_unknown=True)
    after = dict(looked_at.model.named_parameters())
    assert after.keys() == before.keys() and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, after[name]) and after[name].requires_grad == flag for name, (value, flag) in before.items())
    assert all(parameter.grad is None for parameter in after.values())
    assert [module.training for module in looked_at.model.modules()] == modes and not hasattr(looked_at.model, "peft_config")
    # So a run after a preflight is the run without one.
    trained = [dict(fit(loaded, forget, retain, config).loaded.model.named_parameters()) for loaded in (looked_at, fresh)]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize(
    ("overrides", "rows"),
    [
        ([], 12),
        (["training.micro_batch=3"], 3),
        (["training.retain_batch=2"], 7),
        (["training.micro_batch=50"], 7),
        (["method=vgid_released"], 12),
        (["training.max_tokens=1"], 1),
    ],
    ids=str,
)
def test_rows_that_go_through_the_model_together(
    random_model: LoadedModel, forget: list[Example], retain: list[Example], overrides: list[str], rows: int
) -> None:
    config = load_config(None, ["training.forget_batch=5", "training.retain_batch=7", *overrides])
    assert check_run(random_model, forget, retain, config, allow_unknown=True, sample=1).memory.rows == rows


def test_full_parameters(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    config = load_config(None, ["adapter=null", "training.parts=[projector]"])
    found = check_run(random_model, forget, retain, config, allow_unknown=True)
    assert found.gradients.modules == {"projector": 2} and not found.errors
    # The frozen copy that is the reference is counted.
    assert found.memory.weights == 2 * sum(p.nbytes for p in random_model.model.parameters())


def test_without_anything_to_retain_it_says_so(random_model: LoadedModel, forget: list[Example]) -> None:
    found = check_run(random_model, forget, [], load_config(), allow_unknown=True)
    assert any("nothing is retained" in warning for warning in found.warnings) and "! " in shown(found)


# -- rows -----------------------------------------------------------------------------------------------------------------


def test_lengths_are_exact_at_the_top(random_model: LoadedModel) -> None:
    rows = [replace(example(n), question="Who is this person? " * (n + 1)) for n in range(5)]
    side = measure(random_model.encoder, rows, "Forget what you know.", seed=0)
    assert side.longest == len(random_model.encoder.row(rows[4], "Forget what you know.").text["input_ids"])
    assert side.longest_row is rows[4] and side.image_tokens == Spread(16, 16, 16) and not side.problems


def test_rows_that_do_not_fit_are_errors(random_model: LoadedModel, retain: list[Example]) -> None:
    long = [replace(example(n), question="Where does Anna live? " * 60, where=f"forget.jsonl:{n}") for n in (1, 2)]
    with pytest.raises(DataError, match=r"(?s)2 problems.*forget.jsonl:1: the row is longer.*expected: at most 256 tokens") as caught:
        check_run(random_model, [*long, example(3)], retain, load_config(), allow_unknown=True)
    assert "Anna" not in str(caught.value)


def test_the_model_s_own_positions_are_a_limit_too(random_model: LoadedModel, retain: list[Example], forget: list[Example]) -> None:
    random_model.model.config.get_text_config().max_position_embeddings = 30
    with pytest.raises(DataError, match=r"(?s)problems.*expected: at most 30 tokens"):
        check_run(random_model, forget, retain, load_config(), allow_unknown=True)


def test_many_rows_are_sampled_with_the_longest_among_them() -> None:
    rows = [Example(str(n), "q" * (1 + n % 97), "a") for n in range(1000)]
    chosen = choose(rows, seed=0, most=100)
    assert len({row.id for row in chosen}) == 100 and choose(rows, seed=0, most=100) == chosen
    assert max(len(row.question) for row in chosen) == 97 and choose(rows, seed=0) == rows


def test_a_sample_shows_where_the_labels_lie(random_model: LoadedModel) -> None:
    encoder = random_model.encoder
    two = replace(example(0), images=(ImageRef(data=png(1)), ImageRef(data=png(2))))
    sample = sample_of(encoder, two, None, show=True)
    assert sample.image_tokens == 32 and sample.prompt == "<|user|>[32 image tokens]Who is this person?<|assistant|>"
    assert sample.answer == "This is Anna Keller.<|end|>"
    row = encoder.row(two)
    assert sample.image_tokens + sample.prompt_tokens + sample.answer_tokens == len(row.text["input_ids"])
    hidden = sample_of(encoder, example(1, image=False), None, show=False)
    assert hidden.prompt is None and hidden.answer is None and str(hidden).startswith("[") and "image" not in str(hidden)


# -- gradients ------------------------------------------------------------------------------------------------------------


def test_modules_without_a_gradient_are_named(random_model: LoadedModel, forget: list[Example]) -> None:
    last = random_model.model.model.language_model.layers[-1].mlp.down_proj
    last.register_forward_hook(lambda module, inputs, out: out.detach())
    with on_trial(random_model.model, load_config()) as model:
        gradients = try_gradients(model, random_model.encoder, forget[:1], "fp32")
    names = {name.rpartition(".")[2] for name in gradients.unreached}
    assert names == {"gate_proj", "up_proj"} and all(".4.mlp" in name for name in gradients.unreached)
    assert not gradients.dead_parts and gradients.modules == {"language": 35}


def test_a_part_without_any_gradient_is_an_error(random_model: LoadedModel) -> None:
    rows = [example(n, image=False) for n in range(4)]
    config = load_config(None, ["adapter.scope=[language,vision]"])
    found = check_run(random_model, rows[:2], [replace(row, id=f"r{row.id}", question="Where?") for row in rows[2:]], config)
    assert found.errors[0].problem == "no gradient reaches a part of the model that is to be trained"
    assert "none in vision" in str(found.errors[0]) and "adapter.scope" in str(found.errors[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_gives_the_same_gradients_behind_a_frozen_tower(
    random_model: LoadedModel, forget: list[Example], precision: str
) -> None:
    for scope in ("[language]", "[projector,language]"):
        with on_trial(random_model.model, load_config(None, [f"adapter.scope={scope}", "adapter.dropout=0.1"])) as model:
            gradients = try_gradients(model, random_model.encoder, forget, precision)
        assert gradients.checkpointing and not gradients.unreached


def test_checkpointing_that_cannot_be_had_is_an_error(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    random_model.model.supports_gradient_checkpointing = False
    config = load_config(None, ["training.gradient_checkpointing=true"])
    found = check_run(random_model, forget, retain, config, allow_unknown=True)
    assert "gradient checkpointing does not work with this model" in str(found.errors[0])
    assert not check_run(random_model, forget, retain, load_config(), allow_unknown=True).errors


# -- knowledge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accuracy", "probability", "known"), [(0.0, 0.1, False), (0.19, 0.49, False), (0.2, 0.0, True), (0.0, 0.5, True)])
def test_knowing_means_facts_or_probability(accuracy: float, probability: float, known: bool) -> None:
    assert Knowledge(10, accuracy, probability).known == known


def test_strangers_are_not_asked_about() -> None:
    rows = [replace(example(n), tags=(STRANGER,) if n % 2 else ()) for n in range(20)]
    assert len(some(rows, 32, seed=0)) == 10 and all(STRANGER not in row.tags for row in some(rows, 4, seed=0))
    assert some(rows, 4, seed=0) == some(rows, 4, seed=0) != some(rows, 4, seed=1)


def test_a_model_that_learned_the_rows_is_ready(random_folder: Path, retain: list[Example]) -> None:
    loaded = load_model(random_folder)
    forget = [example(1), example(2)]
    learn = ["method={name: finetune}", "adapter=null", "training.steps=40", "training.retain_batch=2", "training.learning_rate=2e-3"]
    learned = fit(loaded, [], forget, load_config(None, learn)).loaded
    found = check_run(LoadedModel(learned.model, learned.processor, "x"), forget, retain, load_config())
    assert found.knowledge.accuracy == 1.0 and found.knowledge.probability > 0.5 and not found.errors
    assert "tells 100% of the facts in 2 forget questions" in " ".join(shown(found).replace("│", " ").split())


def test_a_method_without_a_teacher(random_model: LoadedModel, forget: list[Example], retain: list[Example]) -> None:
    found = check_run(random_model, forget, retain, load_config(None, ["method={name: finetune}"]), allow_unknown=True)
    assert found.teacher is None and "no teacher" in shown(found) and "teacher" not in found.sides


def test_the_encoder_counts_image_tokens(random_model: LoadedModel) -> None:
    encoder = Encoder(random_model.processor)
    assert encoder.image_tokens(encoder.row(example(1))) == 16 and encoder.image_tokens(encoder.row(example(1, image=False))) == 0
