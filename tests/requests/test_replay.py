"""Replays of recorded requests: the same options are read from a record, other inputs are refused, and differences are named.

A folder with a finished copy of the run stands in for one that a replay ran in: a run goes on there only where model, rows, settings,
policy and key are the very same, so these tests see whether all of it is read from the record. The slow test runs everything again.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from vgid.commands import app
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError, OutputError, RunError, VgidError
from vgid.progress import Stages
from vgid.requests.files import sha256
from vgid.requests.keys import read_key
from vgid.requests.manifest import write_manifest
from vgid.requests.record import read_record
from vgid.requests.replay import ReplayOptions, ReplayResult, replay


@pytest.fixture
def finished(copied: Path) -> Path:
    """A run in `out`, and a finished replay in `again`."""
    shutil.copytree(copied / "out", copied / "again")
    return copied


def run(root: Path, **changes: Any) -> ReplayResult:
    with Stages(quiet=True) as stages:
        return replay(replace(ReplayOptions(root / "out", root / "again"), **changes), stages=stages)


def command(root: Path, *words: object) -> Result:
    return CliRunner().invoke(app, ["record", "replay", str(root / "out"), "--out", str(root / "again"), *map(str, words)])


def rewrite(root: Path, change: Callable[[Any], object]) -> None:
    """Change the record of the run, with a manifest that fits."""
    path = root / "out" / "record.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    write_manifest(root / "out", read_key(root / "out.key"))


def test_all_that_decides_a_run_is_read_from_its_record(finished: Path) -> None:
    found = run(finished)
    assert found.equal and found.environment == {} and found.recorded == found.replayed == sha256(finished / "out" / "record.json")


def test_a_purged_run_is_given_its_inputs(finished: Path) -> None:
    """Rows by where they lie now; the model stands in the record."""
    shutil.rmtree(finished / "out" / "work")
    with pytest.raises(DataError, match=r"(?s)where the recorded request lies is not known: the run was purged.*--request"):
        run(finished)
    with pytest.raises(DataError, match="where the recorded retain lies"):
        run(finished, request=finished / "request")
    ended = command(finished, "--request", finished / "request", "--retain", finished / "retain.jsonl", "--json")
    found = json.loads(ended.stdout)
    assert ended.exit_code == 0 and found["schema"] == "vgid.record-replay/1" and found["equal"]
    assert found["weights"] == found["figures"] == found["environment"] == {} and "came out again" in found["means"]


def test_other_inputs_are_refused_by_name(finished: Path, random_folder: Path) -> None:
    rows, kept = (load_examples(finished / name) for name in ("request", "retain.jsonl"))
    shutil.copytree(random_folder, finished / "model")
    (finished / "model" / "config.json").write_text("{}")
    (finished / "model" / "more.txt").touch()
    (finished / "request" / "request.yaml").write_text("id: T-1\nreceived: 2026-05-01\nground: GDPR Art. 17\nname: Berta\n", "utf-8")
    write_examples(finished / "request" / "rows.jsonl", [replace(rows[0], answer="Oslo."), *rows[1:]])
    write_examples(finished / "retain.jsonl", kept[::-1])
    with pytest.raises(DataError, match="inputs are not those of the record") as error:
        run(finished, model=str(finished / "model"))
    assert str(error.value.got).split("\n  ")[1:] == [
        "model: config.json is another",
        "model: more.txt is not in the record",
        "request: other rows",
        "retain: the same rows in another order",
        "request: request.yaml states something else",
    ]
    assert "Oslo" not in str(error.value) and "Berta" not in str(error.value)


def test_what_differs_is_named_with_both_versions(finished: Path) -> None:
    def other(content: Any) -> None:
        weights = next(each for each in content["model"]["after"]["files"] if each["path"] == "model.safetensors")
        weights["sha256"] = sha256(finished / "out" / "merged" / "model.safetensors")[::-1]
        content["procedure"]["versions"]["torch"] = "1.0"
        content["verification"]["evaluation"]["forget"]["base"]["accuracy"] = 0.125

    rewrite(finished, other)
    with pytest.raises(RunError, match=r"(?s)altered since its record.*merged/model.safetensors: altered"):
        run(finished)
    again = read_record(finished / "again" / "record.json")
    # The file itself must have the recorded digest, so here only versions and figures are other ones.
    rewrite(finished, lambda content: content["model"].update(after=again.as_json()["model"]["after"]))
    ended = command(finished)
    shown = " ".join(ended.stdout.split())
    torch = again.procedure.versions["torch"]
    assert ended.exit_code == 3 and "other figures: verification.evaluation.forget.base.accuracy" in shown
    assert f"torch 1.0 recorded and {torch} here" in shown and "other weights" not in shown
    found = run(finished)
    assert found.environment == {"torch": ("1.0", torch)} and list(found.figures) == ["verification.evaluation.forget.base.accuracy"]


def test_other_weights_without_other_versions() -> None:
    found = ReplayResult("a", "b", {"model.safetensors": ("0", "1")}, {}, {})
    assert not found.equal and "the cause is another" in found.means
    assert found.as_json()["weights"] == {"model.safetensors": {"recorded": "0", "replayed": "1"}}


def drop_inputs(content: Any) -> None:
    del content["procedure"]["options"]["inputs"]


def alter_inputs(content: Any) -> None:
    content["procedure"]["options"]["inputs"] = 5


def lose_a_setting(content: Any) -> None:
    del content["procedure"]["config"]["training"]["steps"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop_inputs, "does not hold what a replay needs"),
        (alter_inputs, "does not hold what a replay needs"),
        (lose_a_setting, r"(?s)other settings than the record.*found: training.steps"),
    ],
)
def test_records_that_cannot_be_replayed(copied: Path, change: Callable[[Any], object], problem: str) -> None:
    rewrite(copied, change)
    with pytest.raises(ConfigError, match=problem):
        run(copied)
    assert not (copied / "again").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "problem"),
    [
        ({"out": "out/again"}, OutputError, "written into the recorded run"),
        ({"out": "out"}, OutputError, "written into the recorded run"),
        ({"key": "none.key"}, ConfigError, "the recorded run's key is missing"),
        ({"reference": "model"}, ConfigError, "the recorded run had no --reference"),
        ({"earlier_run": "out"}, ConfigError, "the recorded run had no --earlier-run"),
    ],
)
def test_options_that_cannot_be_used(copied: Path, changes: dict[str, str], kind: type[VgidError], problem: str) -> None:
    given = {name: value if name == "reference" else copied / value for name, value in changes.items()}
    with pytest.raises(kind, match=problem):
        run(copied, **given)
    assert not (copied / "again").exists()


@pytest.mark.slow
def test_the_whole_request_runs_again_and_gives_the_same(copied: Path) -> None:
    """Weights bit for bit, and every figure."""
    ended = command(copied, "--json")
    found = json.loads(ended.stdout)
    assert ended.exit_code == 0 and found["equal"] and found["recorded"] != found["replayed"], ended.output
    one, two = (copied / name / "merged" / "model.safetensors" for name in ("out", "again"))
    assert one.read_bytes() == two.read_bytes()
