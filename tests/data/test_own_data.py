"""Own data in every shape they come in: the same rows, whichever command reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from tests.conftest import example, png
from vgid.attacks.base import Endpoint
from vgid.auditing.audit import audit
from vgid.benchmarking.splits import check_data, convert_data
from vgid.commands import app
from vgid.config import RunConfig, resolve
from vgid.data.example import Example
from vgid.data.sources import load_examples, split_files
from vgid.errors import DataError, RunError
from vgid.evaluation.generation import generate
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.results import evaluate_models, read_splits
from vgid.synthetic.tiny import tiny_path
from vgid.unlearning import answered, read_rows, unlearn
from vgid.verify_served import verify_served


def fact(number: int) -> tuple[str, str]:
    return f"Who is number {number}?", f"This is Anna the {number}."


def turns(number: int) -> list[dict[str, Any]]:
    asked, answered = fact(number)
    return [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": asked}]},
        {"role": "assistant", "content": [{"type": "text", "text": answered}]},
    ]


def as_jsonl(folder: Path, numbers: range, row: Callable[[int], dict[str, Any]], name: str) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / name).write_text("".join(json.dumps(row(number)) + "\n" for number in numbers))


def messages_jsonl(root: Path, split: str, numbers: range) -> Path:
    as_jsonl(root / split, numbers, lambda n: {"images": [f"{n}.png"], "messages": turns(n)}, f"{split}.jsonl")
    return root / split / f"{split}.jsonl"


def image_folder(root: Path, split: str, numbers: range) -> Path:
    as_jsonl(
        root / split,
        numbers,
        lambda n: {"file_name": f"{n}.png", **dict(zip(("prompt", "completion"), fact(n), strict=True))},
        "metadata.jsonl",
    )
    return root / split


def messages_parquet(root: Path, split: str, numbers: range) -> Path:
    """In two shards, as `save_to_disk` and the hub have them."""
    (root / split).mkdir(parents=True)
    rows = [{"images": [{"bytes": png(n), "path": f"{n}.png"}], "messages": turns(n)} for n in numbers]
    for shard in range(2):
        parquet.write_table(pa.Table.from_pylist(rows[shard::2]), root / split / f"train-{shard:05d}-of-00002.parquet")
    return root / split


def prompts_parquet(root: Path, split: str, numbers: range) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [{"images": [{"bytes": png(n), "path": None}], "prompt": turns(n)[:1], "completion": turns(n)[1:]} for n in numbers]
    parquet.write_table(pa.Table.from_pylist(rows), root / f"{split}.parquet")
    return root / f"{split}.parquet"


SHAPES = [messages_jsonl, image_folder, messages_parquet, prompts_parquet]


def contents(rows: list[Example]) -> list[tuple[str, str, bytes]]:
    return sorted((row.question, row.answer, row.images[0].read()) for row in rows)


@pytest.mark.parametrize("write", SHAPES)
def test_every_shape_gives_the_same_rows_to_every_command(write: Callable[[Path, str, range], Path], tmp_path: Path) -> None:
    forget, retain = write(tmp_path, "forget", range(4)), write(tmp_path, "retain", range(4, 8))
    expected = {name: sorted((*fact(n), png(n)) for n in numbers) for name, numbers in (("forget", range(4)), ("retain", range(4, 8)))}
    rows = dict(zip(("forget", "retain"), read_rows(forget, retain, RunConfig()), strict=True))  # unlearn, preflight
    assert {name: contents(each) for name, each in rows.items()} == expected
    assert not {row.id for row in rows["forget"]} & {row.id for row in rows["retain"]}
    assert {name: contents(each) for name, each in read_splits([forget, retain]).items()} == expected  # evaluate
    checked = check_data([str(forget), str(retain)])
    assert {name: (report.rows, report.problems) for name, report in checked.splits.items()} == {"forget": (4, ()), "retain": (4, ())}
    assert checked.overlap is not None and not checked.overlap.ids and not checked.overlap.pictures
    convert_data(str(forget), tmp_path / "out" / "forget.parquet")
    assert contents(load_examples(tmp_path / "out" / "forget.parquet")) == expected["forget"]


def test_rows_in_memory_are_read_by_runs_too() -> None:
    forget, retain = ([dict(zip(("question", "answer"), fact(n), strict=True)) for n in numbers] for numbers in (range(2), range(2, 4)))
    rows = read_rows(forget, retain, RunConfig())
    assert [[row.id for row in each] for each in rows] == [["forget-1", "forget-2"], ["retain-1", "retain-2"]]
    assert read_rows(*rows, RunConfig()) == rows


def test_held_out_rows_are_read_by_the_settings_too(tmp_path: Path) -> None:
    """With every answer of a conversation as a row, its first question is one of the forget set."""
    said = [{"role": role, "content": text} for n in (0, 1) for role, text in zip(("user", "assistant"), fact(n), strict=True)]
    (tmp_path / "held_out.jsonl").write_text(json.dumps({"messages": said}))
    forget = [dict(zip(("question", "answer"), fact(0), strict=True))]
    with pytest.raises(DataError, match="question about the same images is in the forget set and in the held-out rows"):
        unlearn(tmp_path / "no model", forget, None, resolve(None, ["data.turns=all"]), held_out=tmp_path / "held_out.jsonl")


def test_audits_evaluations_and_checks_of_servers_read_by_the_same_options(tmp_path: Path, random_folder: Path) -> None:
    """With every answer as a row, and pictures in another folder, the first conversation asks what the second does."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(png(0))
    told = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Anna."}]
    asked = [*told, {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Oslo."}]
    forget, retain = tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"
    forget.write_text(json.dumps({"messages": asked, "images": ["0.png"]}))
    retain.write_text(json.dumps({"messages": told, "images": ["0.png"]}))
    reading: dict[str, Any] = {"turns": "all", "image_root": tmp_path / "pictures"}
    model, nobody = str(random_folder), Endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(DataError, match="the same question about the same images"):
        audit(model, base=model, forget=forget, retain=retain, **reading)
    with pytest.raises(RunError):  # the rows are read, and then nobody answers
        verify_served(nobody, model, model, forget, **reading)
    evaluate_models({"unlearned": (None, None)}, [forget], stages=Stages(quiet=True), **reading)
    assert [row.question for row in read_splits([forget], **reading)["forget"]] == ["Who?", "Where?"]
    commands: list[Callable[[], object]] = [
        lambda: audit(model, base=model, forget=forget, retain=retain),
        lambda: verify_served(nobody, model, model, forget),
        lambda: evaluate_models({"unlearned": (None, None)}, [forget]),
    ]
    for command in commands:
        with pytest.raises(DataError, match="image not found"):
            command()


def test_rows_without_an_answer_get_the_model_s_own(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, open_row = load_model(tiny_path()), example(1, answer="")
    (said,) = generate(loaded, [open_row])
    rows = answered(loaded, [example(0), open_row, example(2)], "forget", Stages(quiet=True))
    assert said.strip() and rows == [example(0), example(1, answer=said.strip()), example(2)]
    assert "1 of 3 forget rows have no answer" in caplog.text and said.strip() not in caplog.text
    monkeypatch.setattr("vgid.unlearning.generate", lambda _, rows: [" "] * len(rows))
    with pytest.raises(DataError, match=r"row-1: row has no answer, and the model gives none"):
        answered(loaded, [example(0), open_row], "forget", Stages(quiet=True))
    given = [example(0), example(2)]
    assert answered(loaded, given, "forget", Stages(quiet=True)) == given  # the model is not asked


def test_splits_are_named_by_file_or_folder(tmp_path: Path) -> None:
    for name in (
        "a/metadata.jsonl",
        "b/metadata.jsonl",
        "c/train-00000-of-00002.parquet",
        "c/train-00001-of-00002.parquet",
        "d/x-00000-of-00001.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = split_files([tmp_path / each for each in "abcd"])
    assert {name: len(files) for name, files in found.items()} == {"a": 1, "b": 1, "c": 2, "x": 1}
    (tmp_path / "c" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(
        DataError, match=r"(?s)a part of the split is missing.*expected: 2 files, train-00000-of-00002 among them.*found: 1"
    ):
        split_files([tmp_path / "c"])
    assert list(split_files([tmp_path / "c" / "train-00001-of-00002.parquet"])) == ["c"]
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"(?s)two splits have the same name.*x-00000-of-00001.parquet"):
        split_files([tmp_path / "d", tmp_path / "e"])


@pytest.mark.slow
@pytest.mark.parametrize("write", [image_folder, messages_parquet])
def test_commands_run_on_it_from_end_to_end(write: Callable[[Path, str, range], Path], tmp_path: Path, random_folder: Path) -> None:
    runner, model = CliRunner(), str(random_folder)
    forget, retain = (str(write(tmp_path, name, numbers)) for name, numbers in (("forget", range(4)), ("retain", range(4, 8))))
    both, out = ["--forget", forget, "--retain", retain], tmp_path / "out"
    quick = ["--set", "training.steps=2", "--set", "validation.every=0", "--set", "method.answers=[recorded]", "--allow-unknown"]
    unlearned = str(out / "merged")
    for arguments, codes in (
        (["data", "check", forget, retain], (0,)),
        (["preflight", "--model", model, *both, *quick], (0,)),
        (["unlearn", "--model", model, *both, *quick, "--out", str(out)], (0,)),
        (["evaluate", "--model", unlearned, "--base", model, "--data", forget, "--data", retain], (0,)),
        (["audit", "--model", unlearned, "--base", model, *both, "--max-rows", "2"], (0, 3)),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code in codes, (arguments, done.output, done.exception)
        # Retain rows may show in the preflight's sample of labels, rows to forget may not.
        assert not any(f"Anna the {number}" in done.output for number in range(4))
