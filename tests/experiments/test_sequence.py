"""Requests in a row: figures worked out by hand, and a run that is stopped and goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.attacks.people import material
from vgid.commands import app
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.experiments import sequence as module
from vgid.experiments.sequence import TRAINED, embedded, of_files, sequence, summarise
from vgid.progress import Stages
from vgid.report.sequence import sequence_markdown, summary
from vgid.synthetic.tiny import tiny_path

QUICK = ("training.steps=2", "training.forget_batch=2", "training.retain_ratio=2", "method.adversary=null", "method.augment=0")


def test_figures_are_those_of_all_requests() -> None:
    """Two requests: the second leaves 0.25 of its own facts and 0.5 of the first's; who stay fall from 1.0 to 0.7 and come back to 0.9."""
    steps: list[dict[str, Any]] = [
        {"request": 0, "own": None, "earlier": None, "later": 1.0, "stay": 1.0},
        {"request": 1, "own": 0.0, "earlier": None, "later": 1.0, "stay": 0.7},
        {"request": 2, "own": 0.25, "earlier": 0.5, "later": None, "stay": 0.9},
    ]
    found = summarise(steps)
    assert found["summary"]["own"] == {"mean": 0.125, "worst": 0.25} and found["summary"]["earlier"] == {"mean": 0.5, "worst": 0.5}
    assert found["summary"]["drop"] == pytest.approx(0.1) and found["summary"]["largest_drop"] == pytest.approx(0.3)
    results = {**found, "steps": steps, "people": {"requests": 2, "stay": 1}, "held_out": True}
    assert "| before |  |  | 100.0 | 100.0 |" in sequence_markdown(results) and "| 2 | 25.0 | 50.0 |  | 90.0 |" in sequence_markdown(
        results
    )
    assert "12.5 % answered on average, 25.0 % at most" in summary(results) and "lost 10.0 points in all, 30.0 at most" in summary(results)
    alone = summarise(steps[:2])["summary"]
    assert alone["earlier"] is None and "facts of earlier" not in summary({"summary": alone})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, rows = tmp_path_factory.mktemp("sequence"), material(2, 2, 2)
    write_examples(root / "forget.jsonl", rows.forget)
    write_examples(root / "retain.jsonl", rows.retain)
    return root / "forget.jsonl", root / "retain.jsonl"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_figures(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = of_files(tiny_path(), *files, None)
    options: dict[str, Any] = {"overrides": QUICK, "stages": Stages(quiet=True)}
    whole = sequence(given, out=tmp_path / "whole", **options)
    real, calls = module.save_checkpoint, []

    def stop_at_the_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "save_checkpoint", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        sequence(given, out=tmp_path / "stopped", **options)
    again = sequence(given, out=tmp_path / "stopped", **options)
    assert len(calls) == 3  # the first request is not honoured again

    def figures(results: dict[str, Any]) -> list[list[Any]]:
        return [[step[name] for name in ("own", "earlier", "later", "stay")] for step in results["steps"]]

    assert figures(again) == figures(whole) and whole["steps"][0]["stay"] > 0.5
    assert [step["earlier"] is None for step in whole["steps"]] == [True, True, False]
    assert [path.name for path in (tmp_path / "stopped" / "models").iterdir()] == ["0002"]


@pytest.mark.slow
def test_the_people_of_the_embedded_base(tmp_path: Path) -> None:
    given = embedded(2, 0)
    assert len(given.requests) == 2 and len(given.trained) == 64
    for person in given.requests:
        trained, asked = ({row.id for row in rows[person]} for rows in (given.trained, given.asked))
        assert len(trained) == TRAINED and asked and not trained & asked
    with pytest.raises(ConfigError, match="somebody must stay"):
        embedded(64, 0)


def test_the_command(files: tuple[Path, Path], tmp_path: Path) -> None:
    forget, retain = map(str, files)
    done = CliRunner().invoke(
        app, ["experiment", "sequence", "--model", str(tiny_path()), "--forget", forget, "--out", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, ConfigError) and "an own model needs its rows" in str(done.exception)
    given = ["--model", str(tiny_path()), "--forget", forget, "--retain", retain, "--requests", "1", "--out", str(tmp_path / "out")]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    done = CliRunner().invoke(app, ["experiment", "sequence", *given, *settings, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["people"] == {"requests": 1, "stay": 3} and (tmp_path / "out" / "experiment.md").is_file()
