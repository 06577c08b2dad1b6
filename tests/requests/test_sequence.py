"""Requests in a row: rows of earlier deletions are trained on again and audited again, and the record says what all of them cost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import example, png
from vgid.config import load_config
from vgid.data.writing import write_examples
from vgid.enrichment import KINDS
from vgid.errors import ConfigError, DataError, RunError
from vgid.progress import Stages
from vgid.requests.forget import ForgetResult
from vgid.requests.previous import ANCHOR_SHARE, read_previous_deletions
from vgid.requests.replay import ReplayOptions, replay

from .runs import POLICY, SETTINGS, copy_run, honour, make_options, make_request


def second(root: Path, model: Path, **changes: Any) -> Any:
    request = make_request(root / "request-2", first=10, id="T-2")
    options = make_options(root, model, request=request, out=root / "out-2", after=root / "out")
    return replace(options, **{"model": None, "without": tuple(KINDS), **changes})


@pytest.fixture(scope="session")
def twice(
    honoured: tuple[Path, ForgetResult], random_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A second request after the first."""
    root = tmp_path_factory.mktemp("twice") / "copy"
    copy_run(honoured[0], root)
    return root, honour(second(root, random_folder)).record


def test_the_earlier_request_is_anchored_audited_and_named(twice: tuple[Path, dict[str, Any]], honoured: tuple[Path, ForgetResult]) -> None:
    root, record = twice
    (earlier,) = record["sequence"]["earlier"]
    assert (earlier["request"], earlier["rows"], earlier["record"]) == ("T-1", 4, honoured[1].sha256)
    assert (
        earlier["policy"] == honoured[1].record["verification"]["policy"]
        and earlier["commitment"] == honoured[1].record["data"]["commitment"]
    )
    assert earlier["status"] == "inconclusive" and earlier["known"] == 0 and earlier["still_told"] == 0.0
    assert record["data"]["rows"] == 4 and record["data"]["anchors"] == ANCHOR_SHARE * 4
    assert record["model"]["before"]["files"] == honoured[1].record["model"]["after"]["files"]
    assert (root / "out-2" / "audit-earlier-1" / "audit.json").is_file()
    assert "audit-earlier-1/audit.json" in {each["path"] for each in record["artefacts"]}


def test_a_run_of_a_sequence_is_replayed(twice: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """From the run before it, or from a replay of that: a finished copy stands in for the folder that the replay ran in."""
    root = copy_run(twice[0], tmp_path / "copy")
    shutil.copytree(root / "out-2", root / "again")
    options = ReplayOptions(root / "out-2", root / "again")
    with Stages(quiet=True) as stages:
        assert replay(options, stages=stages).equal
        with pytest.raises(ConfigError, match="the recorded run had no --model"):
            replay(replace(options, model="model"), stages=stages)
        with pytest.raises(DataError, match="earlier requests: others"):
            replay(replace(options, earlier_run=root / "out-2"), stages=stages)
        shutil.move(root / "request", root / "moved")
        with pytest.raises(DataError, match="earlier request T-1: its rows no longer exist"):
            replay(options, stages=stages)
        assert replay(replace(options, earlier=(root / "moved",)), stages=stages).equal
        shutil.move(root / "out", root / "first")
        with pytest.raises(DataError, match=r"(?s)the recorded earlier run is no longer where.*--earlier-run"):
            replay(options, stages=stages)


@pytest.mark.slow
def test_a_whole_sequence_runs_again_and_gives_the_same(twice: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The first run anew, then the second from that: weights bit for bit, and every figure."""
    root = copy_run(twice[0], tmp_path / "copy")
    with Stages(quiet=True) as stages:
        assert replay(ReplayOptions(root / "out", root / "again"), stages=stages).equal
        second_again = ReplayOptions(root / "out-2", root / "again-2", earlier_run=root / "again")
        assert replay(second_again, stages=stages).equal
    one, two = (root / name / "merged" / "model.safetensors" for name in ("out-2", "again-2"))
    assert one.read_bytes() == two.read_bytes()


def test_drift_is_measured_against_the_first_model(twice: tuple[Path, dict[str, Any]]) -> None:
    drift, splits = twice[1]["sequence"]["drift"], twice[1]["verification"]["evaluation"]
    figures = {name: each["accuracy"] for name, each in splits["retain"].items()}
    assert set(figures) == {"original", "base", "unlearned"} and drift["requests"] == 2
    assert drift == {
        "requests": 2,
        "first": figures["original"],
        "before": figures["base"],
        "after": figures["unlearned"],
        "drop": figures["original"] - figures["unlearned"],
    }


@pytest.mark.slow
def test_rows_that_no_longer_exist_are_reported_as_unchecked(copied: Path, random_folder: Path) -> None:
    shutil.rmtree(copied / "request")
    record = honour(second(copied, random_folder)).record
    (earlier,) = record["sequence"]["earlier"]
    assert earlier["status"] == "not checked" and "its rows no longer exist" in earlier["reason"] and record["data"]["anchors"] == 0
    assert "Earlier requests that could not be audited again: T-1." in record["conclusion"]["residual_risk"]


def test_after_a_purge_request_folders_must_be_given(copied: Path) -> None:
    shutil.rmtree(copied / "out" / "work")
    assert read_previous_deletions(copied / "out", []).deletions[0].rows is None
    moved = shutil.move(copied / "request", copied / "moved")
    (found,) = read_previous_deletions(copied / "out", [Path(moved)]).deletions
    assert found.request == "T-1" and found.rows is not None and len(found.rows) == 4


@pytest.mark.slow
def test_how_rows_were_read_is_noted_for_what_comes_after(tmp_path: Path, random_folder: Path) -> None:
    """By options of the run alone: a later request and a replay read the same rows, and the record does not name the folder."""
    (tmp_path / "anna-keller").mkdir()
    talks = {"request": [(1, "T-1")], "retain": [(20, ""), (21, "")]}
    for name, rows in talks.items():
        (tmp_path / name).mkdir()
        lines = []
        for number, _ in rows:
            (tmp_path / "anna-keller" / f"{number}.png").write_bytes(png(number))
            said = [("user", "Who is this?"), ("assistant", f"Person {number}."), ("user", "Who else?"), ("assistant", f"Friend {number}.")]
            turns = [{"role": role, "content": text} for role, text in said]
            lines.append(json.dumps({"id": f"{name}-{number}", "image": f"{number}.png", "subject": f"s{number}", "messages": turns}))
        (tmp_path / name / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "request" / "request.yaml").write_text("id: T-1\n", "utf-8")
    (tmp_path / "policy.yaml").write_text(POLICY, "utf-8")
    config = load_config(None, [*SETTINGS, "data.turns=all", f"data.image_root={tmp_path / 'anna-keller'}"])
    given = {"request": tmp_path / "request", "retain": tmp_path / "retain", "policy": tmp_path / "policy.yaml", "without": tuple(KINDS)}
    (tmp_path / "retain.jsonl").touch()  # none of its own is made
    record = honour(make_options(tmp_path, random_folder, config=config, **given)).record
    assert (record["data"]["rows"], record["data"]["retain_rows"]) == (2, 4)
    assert record["procedure"]["config"]["data"] == {**config.model_dump()["data"], "image_root": None}
    assert "anna-keller" not in (tmp_path / "out" / "record.json").read_text("utf-8")
    (found,) = read_previous_deletions(tmp_path / "out", []).deletions
    assert found.problem == "" and found.rows is not None and [row.answer for row in found.rows] == ["Person 1.", "Friend 1."]
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    with Stages(quiet=True) as stages:
        assert replay(ReplayOptions(tmp_path / "out", tmp_path / "again"), stages=stages).equal
        shutil.rmtree(tmp_path / "out" / "work")
        options = ReplayOptions(tmp_path / "out", tmp_path / "again", request=tmp_path / "request", retain=tmp_path / "retain")
        with pytest.raises(DataError, match="image not found"):
            replay(options, stages=stages)
        assert replay(replace(options, image_root=tmp_path / "anna-keller"), stages=stages).equal


def test_rows_that_have_changed(copied: Path) -> None:
    write_examples(copied / "request" / "rows.jsonl", [example(0, answer="Nobody.")])
    (found,) = read_previous_deletions(copied / "out", []).deletions
    assert found.rows is None and found.problem == "the rows in its folder have changed since"


def test_the_last_record_names_all_deletions_before_it(twice: tuple[Path, dict[str, Any]]) -> None:
    previous = read_previous_deletions(twice[0] / "out-2", [])
    assert [each.request for each in previous.deletions] == ["T-1", "T-2"] and len(previous.rows) == 8
    assert {row.id.partition("/")[0] for row in previous.rows} == {"T-1", "T-2"} and len(previous.anchor_rows(4, 0)) == 2


def test_earlier_runs_that_cannot_be_used(copied: Path, random_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not belong to an earlier request"):
        read_previous_deletions(copied / "out", [make_request(tmp_path / "other", first=30, id="T-7")])
    with pytest.raises(ConfigError, match="an earlier request has the same id"):
        honour(second(copied, random_folder, request=make_request(tmp_path / "same", first=30, id="T-1")))
    (copied / "out" / "audit" / "audit.json").write_text(json.dumps({"verdict": "pass"}))
    with pytest.raises(RunError, match=r"(?s)altered since its record was written.*audit/audit.json: altered"):
        read_previous_deletions(copied / "out", [])
    with pytest.raises(DataError, match="there is no manifest"):
        read_previous_deletions(tmp_path, [])
