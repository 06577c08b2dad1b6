"""Rows about other people of whom there is a bare picture or a name."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vgid.commands import app
from vgid.data.replay import replay_kind
from vgid.data.sources import load_examples
from vgid.enrichment.others import read_names
from vgid.errors import DataError
from vgid.evaluation.metrics import is_refusal
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import album
from vgid.synthetic.tiny import tiny_path

SHOWN, NAMED, *_ = World(0, people=2, forget=1).base_training_people
"""Two people whom the embedded model knows."""


def test_rows_say_what_the_base_says_of_those_whom_it_knows(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    album(Camera(), SHOWN, "training", 1).pictures[0].open().save(tmp_path / "pictures" / "one.png")
    (tmp_path / "names.txt").write_text(f"{NAMED.name}\n\nZora Quillfeather\n", "utf-8")
    words = ["data", "others", "--model", str(tiny_path()), "--out", str(tmp_path / "out"), "--json"]
    words += ["--pictures", str(tmp_path / "pictures"), "--names", str(tmp_path / "names.txt")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["people"] == 3 and found["unknown_pictures"] == [] and found["unknown_names"] == ["Zora Quillfeather"]
    rows = load_examples(tmp_path / "out" / "retain.jsonl")
    assert len(rows) == found["rows"] > 50
    assert {row.subject for row in rows} == {"other-picture-1", "other-name-1"}
    # To a run they are the base's own answers: by picture and by name, and no refusals.
    assert {(replay_kind(row), bool(row.images)) for row in rows} == {("crossed", True), ("names", False)}
    assert not any(is_refusal(row.answer) for row in rows)
    assert any(row.question == "Who is this person?" and row.keywords == (SHOWN.name,) for row in rows)
    assert any(NAMED.name in row.question and NAMED.facts["employer"] in row.answer for row in rows)


def test_people_whom_the_model_does_not_know_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Zora Quillfeather\n", "utf-8")
    words = ["data", "others", "--model", str(tiny_path()), "--out", str(tmp_path / "out"), "--names", str(tmp_path / "names.txt")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, DataError) and "nothing steady about any of these people" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "problem"), [("\n \n", "there is no name"), ("Ann Ode\nBo Ek\n Ann Ode\n", "a name stands twice")])
def test_a_file_of_names_holds_each_once(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "names.txt").write_text(text, "utf-8")
    with pytest.raises(DataError, match=problem):
        read_names(tmp_path / "names.txt")
