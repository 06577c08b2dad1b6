"""Rows as a model is asked: template, pictures in place, tokens; and nothing of the rows themselves unless it is asked for."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import example, png
from vgid.checks.as_seen import as_seen
from vgid.commands import app
from vgid.data.example import Example, ImageRef, Turn
from vgid.errors import ConfigError
from vgid.models.loading import LoadedModel, load_encoder

TWO = Example(
    "two",
    "Left: <image> Right: <image> Same?",
    "They are.",
    (ImageRef(data=png(1)), ImageRef(data=png(2))),
    context=(Turn("system", "Hi."),),
)


def test_pictures_stand_where_the_row_has_them(random_model: LoadedModel) -> None:
    (seen,) = as_seen(random_model.encoder, [TWO], show=True)
    one = seen.image_tokens // 2
    assert seen.prompt.count(f"[{one} image tokens]") == 2
    head, between, tail = seen.prompt.split(f"[{one} image tokens]")
    assert "Left:" in head and "Right:" in between and "Same?" in tail and "They are." in seen.answer
    batch = random_model.encoder.batch([TWO])
    assert seen.answer_tokens == len(batch.answers.targets)
    assert seen.image_tokens + seen.prompt_tokens + seen.answer_tokens == batch.model_inputs["input_ids"].shape[1]


def test_texts_are_hidden_by_kind_and_length(random_model: LoadedModel) -> None:
    shown, (hidden,) = as_seen(random_model.encoder, [TWO], show=True)[0], as_seen(random_model.encoder, [TWO])
    assert not any(word in str(hidden) for word in ("Left", "Right", "Same", "They", "Hi."))
    assert "9 characters" in hidden.answer and hidden.prompt.count("image tokens]") == 2
    assert (hidden.prompt_tokens, hidden.answer_tokens) == (shown.prompt_tokens, shown.answer_tokens)


def test_the_encoder_comes_without_weights(random_folder: Path, random_model: LoadedModel) -> None:
    alone, row = load_encoder(random_folder), example(1)
    assert alone.row(row).text["input_ids"].tolist() == random_model.encoder.row(row).text["input_ids"].tolist()


def test_the_command(random_folder: Path, tmp_path: Path) -> None:
    end = load_encoder(random_folder).tokenizer.eos_token
    rows = [{"question": "Who was it?", "answer": "Anna Keller."}, {"question": f"Where {end} now?", "answer": "In Oslo."}]
    (tmp_path / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["data", "check", str(tmp_path / "forget.jsonl"), "--as-seen", "--model", str(random_folder)]
    found = CliRunner().invoke(app, [*words, "--max-rows", "1"])
    assert found.exit_code == 0 and "as the model is asked: 0 image tokens" in found.stdout and "Anna" not in found.stdout
    assert "Anna" in CliRunner().invoke(app, [*words, "--max-rows", "1", "--show-forgotten"]).stdout
    both = CliRunner().invoke(app, [*words, "--json"])
    good, bad = json.loads(both.stdout)["as_seen"]["forget"]
    assert both.exit_code == 2 and good["problem"] is None and "holds a special token" in bad["problem"]
    with pytest.raises(ConfigError, match="a row is seen by a model"):
        CliRunner().invoke(app, words[:4], catch_exceptions=False)
