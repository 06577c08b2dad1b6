"""`vgid data check` and `vgid data convert` over benchmarks and own data."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.benchmarks import fixtures
from tests.benchmarks.test_others import WRITERS
from tests.conftest import example
from vgid.benchmarking.splits import check_data, convert_data
from vgid.benchmarks.base import BENCHMARKS
from vgid.benchmarks.common.files import locate
from vgid.commands import app
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples, write_parquet
from vgid.errors import ConfigError, DataError, OutputError


def contents(rows: list[Example]) -> list[tuple[object, ...]]:
    return [(e.id, e.question, e.answer, e.subject, e.keywords, e.tags, [ref.read() for ref in e.images]) for e in rows]


@pytest.mark.parametrize("name", WRITERS)
def test_every_benchmark_is_checked_and_converted(name: str, tmp_path: Path) -> None:
    root, part = str(WRITERS[name](tmp_path / "data")), "10" if name == "clear" else None
    checked = check_data([root], name, part)
    benchmark = BENCHMARKS.get(name)(locate(root), None, part)
    assert list(checked.splits) == list(benchmark.training_splits) and checked.overlap is not None
    for split in benchmark.training_splits:
        report = checked.splits[split]
        assert convert_data(root, tmp_path / "out.parquet", name, part, split, overwrite=True) == report.rows > 0 and report.problems == ()
        assert contents(load_examples(tmp_path / "out.parquet")) == contents(list(benchmark.examples(split)))
    # Two ask what is to be forgotten and what is to be kept about the same pictures.
    assert bool(checked.overlap.pictures) == (name in ("safeeraser", "unlok_vqa"))


def test_longest_and_bad_rows_are_listed_without_contents(tmp_path: Path) -> None:
    fixtures.write_mllmu(tmp_path)
    long, bad = fixtures.profile(0) | {"answer": "Secret " * 50}, fixtures.profile(1) | {"question": " "}
    broken = fixtures.profile(2) | {"image": {"bytes": b"no picture", "path": None}}
    fixtures.write_parquet(tmp_path / "forget_5", [long, bad, broken])
    report = check_data([str(tmp_path)], "mllmu").splits["forget_5"]
    assert report.rows == 1 and report.longest[0][1] == len("Who is this?") + 349
    assert (
        "question is empty" in report.problems[0] and "image of unknown format" in report.problems[1] and "parquet:3" in report.problems[1]
    )
    assert "Secret" not in str(report)
    with pytest.raises(DataError, match="question is empty"):
        convert_data(str(tmp_path), tmp_path / "out.parquet", "mllmu", split="forget_5")
    assert not (tmp_path / "out.parquet").exists() and not list(tmp_path.glob(".out*"))
    fixtures.write_parquet(tmp_path / "forget_5", [long, bad])
    assert convert_data(str(tmp_path), tmp_path / "out.parquet", "mllmu", split="forget_5", skip_bad_rows=True) == 1


def test_own_splits_are_compared(tmp_path: Path) -> None:
    write_examples(tmp_path / "forget.jsonl", [example(n) for n in range(3)])
    write_examples(tmp_path / "retain.jsonl", [example(n) for n in range(2, 5)])
    runner = CliRunner()
    shown = runner.invoke(app, ["data", "check", str(tmp_path)])
    assert shown.exit_code == 0 and "3 good rows, 0 problems" in shown.stdout and "1 ids" in shown.stdout
    assert "1 pictures that look alike" in shown.stdout and "Anna" not in shown.stdout
    found = json.loads(runner.invoke(app, ["data", "check", str(tmp_path / "forget.jsonl"), "--json"]).stdout)
    assert found["overlap"] is None and next(iter(found["splits"].values()))["rows"] == 3
    done = runner.invoke(app, ["data", "convert", str(tmp_path / "retain.jsonl"), str(tmp_path / "all.parquet")])
    assert done.exit_code == 0 and len(load_examples(tmp_path / "all.parquet")) == 3


def test_a_set_of_bad_rows_is_listed_too(tmp_path: Path) -> None:
    write_examples(tmp_path / "forget.jsonl", [example(1)])
    (tmp_path / "retain.jsonl").write_text("{\n")
    checked = check_data([str(tmp_path)])
    assert checked.splits["retain"].rows == 0 and "malformed JSON" in checked.splits["retain"].problems[0]
    assert checked.overlap is not None and checked.overlap.texts == ()


def test_what_cannot_be_checked_or_converted(tmp_path: Path) -> None:
    fixtures.write_mllmu(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)unknown benchmark.*did you mean 'mllmu'"):
        check_data([str(tmp_path)], "mlmu")
    with pytest.raises(ConfigError, match=r"(?s)several splits.*forget_5, retain_95"):
        convert_data(str(tmp_path), tmp_path / "x.parquet", "mllmu")
    with pytest.raises(ConfigError, match="only parquet"):
        convert_data(str(tmp_path), tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match="nothing to check"):
        check_data([])
    with pytest.raises(DataError, match="no data file in the folder"):
        check_data([str(tmp_path)])


def test_parquet_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id used twice"):
        write_parquet(tmp_path / "x.parquet", [example(1), example(1)])
    with pytest.raises(DataError, match="no examples to write"):
        write_parquet(tmp_path / "x.parquet", [])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write the file"):
        write_parquet(tmp_path / "file" / "x.parquet", [example(1)])


def test_evaluate_names_what_is_missing(tmp_path: Path) -> None:
    runner = CliRunner()
    root = str(fixtures.write_clear(tmp_path))
    for arguments, message in (
        (["--model", "x"], "there is nothing to ask"),
        (["--model", "x", "--benchmark", "clear", "--data", root, "--forget-part", "10"], "--reference, a model trained without it"),
        (["--model", "x", "--benchmark", "clear", "--data", root, "--data", root], "a benchmark lies in one place"),
        (["--model", "x", "--benchmark", "mllmu"], "MLLMU-Bench needs its data"),
    ):
        found = runner.invoke(app, ["evaluate", *arguments]).exception
        assert isinstance(found, ConfigError | DataError) and message in str(found)
