"""Whole requests: what is written, what the same command does again, and what stops it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import example
from vgid.config import load_config
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.enrichment import KINDS, Kind
from vgid.errors import ConfigError, DataError, ModelError, OutputError
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.requests import steps
from vgid.requests.estimate import estimate_run
from vgid.requests.files import sha256
from vgid.requests.forget import ForgetResult
from vgid.requests.keys import read_key
from vgid.requests.record import Record
from vgid.requests.replay import ReplayOptions, replay

from .runs import SETTINGS, honour, make_options, make_request


def weights(out: Path) -> bytes:
    return (out / "merged" / "model.safetensors").read_bytes()


def test_all_files_are_written_for_their_owner_alone(honoured: tuple[Path, ForgetResult]) -> None:
    root, done = honoured
    record = Record(**done.record)
    assert record.request.id == "T-1" and record.request.received == "2026-05-01" and record.sequence is None
    assert record.conclusion.status == "inconclusive" and "never known" in record.conclusion.statement  # it is a random model
    assert (record.data.rows, record.data.with_image, record.data.text_only, record.data.retain_rows) == (4, 2, 2, 8)
    key = read_key(root / "out.key")
    assert record.request.subjects == sorted(key.subject(f"s{n}") for n in range(4))
    assert record.data.commitment == key.rows(load_examples(root / "request"))
    assert set(record.verification.attacks) == {"paraphrase", "prefill"} and record.verification.export["same_answers"] == 1.0
    below = {path.relative_to(root / "out").as_posix() for path in (root / "out").iterdir()}
    assert below == {".vgid-run", "audit", "checks", "evaluation", "merged", "record.html", "record.json", "manifest.json", "work"}
    modes = {path: path.stat().st_mode & 0o077 for path in [root / "out", root / "out.key", *(root / "out").rglob("*")]}
    assert [path for path, others in modes.items() if others] == []


def test_the_model_is_plain_and_has_changed(honoured: tuple[Path, ForgetResult], random_folder: Path) -> None:
    out = honoured[0] / "out"
    load_model(out / "merged")
    before, after = load_file(random_folder / "model.safetensors"), load_file(out / "merged" / "model.safetensors")
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    card = (out / "merged" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers") and "Audit: **inconclusive**" in card and "about 4 people" in card
    assert not any(word in card for word in ("Anna", "s-", "T-1", str(random_folder)))


def test_words_that_promise_too_much_are_not_used(honoured: tuple[Path, ForgetResult]) -> None:
    out = honoured[0] / "out"
    for text in ((out / name).read_text("utf-8").lower() for name in ("record.json", "record.html", "merged/README.md")):
        assert "evidence of removal" in text and "proof" not in text and "certif" not in text


def test_the_same_command_again_does_nothing(copied: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "check_data", None)
    monkeypatch.setattr(steps, "evaluate_models", None)
    before = {
        path: path.stat().st_mtime_ns
        for path in (copied / "out").rglob("*")
        if path.is_file() and path.name not in ("state.json", ".vgid-run")
    }
    again = honour(make_options(copied, random_folder))
    assert before == {path: path.stat().st_mtime_ns for path in before} and again.record["request"]["id"] == "T-1"


def test_a_run_stopped_before_its_training_is_continued(copied: Path, honoured: tuple[Path, ForgetResult], random_folder: Path) -> None:
    """The quick twin of the next test."""
    out = copied / "out"
    state = json.loads((out / "work" / "state.json").read_text("utf-8"))
    before = list(state["steps"])[: list(state["steps"]).index("unlearn")]
    state["steps"] = {name: state["steps"][name] for name in before}
    (out / "work" / "state.json").write_text(json.dumps(state), "utf-8")
    for folder in ("work/unlearn", "merged", "evaluation", "audit"):
        shutil.rmtree(out / folder)
    for file in ("record.json", "record.html", "manifest.json"):
        (out / file).unlink()
    honour(make_options(copied, random_folder))
    assert weights(out) == weights(honoured[0] / "out")
    after = json.loads((out / "work" / "state.json").read_text("utf-8"))["steps"]
    assert list(after) == list(steps.STEPS) and {name: after[name] for name in before} == state["steps"]


@pytest.mark.slow
def test_a_stopped_run_is_continued(
    honoured: tuple[Path, ForgetResult], tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in every step, once its work is done and before that is on record; the weights are those of a run left alone."""
    options, real, stopped = make_options(tmp_path, random_folder), dict(steps.STEPS), []

    def stopping(name: str) -> Any:
        def step(*arguments: Any) -> Any:
            left = real[name](*arguments)
            if name not in stopped:
                stopped.append(name)
                raise InterruptedError(name)
            return left

        return step

    monkeypatch.setattr("vgid.requests.forget.STEPS", {name: stopping(name) for name in real})
    for name in real:
        with pytest.raises(InterruptedError, match=name):
            honour(options)
    honour(options)
    assert stopped == list(real) and weights(tmp_path / "out") == weights(honoured[0] / "out")


def test_a_file_that_a_step_left_was_changed_so_it_is_done_again(copied: Path, random_folder: Path) -> None:
    (copied / "out" / "audit" / "audit.json").write_text("{}")
    state = json.loads((copied / "out" / "work" / "state.json").read_text())
    done = honour(make_options(copied, random_folder))
    after = json.loads((copied / "out" / "work" / "state.json").read_text())
    assert after["steps"]["evaluate"] == state["steps"]["evaluate"] and after["steps"]["audit"] != state["steps"]["audit"]
    assert done.record["verification"]["status"] == "inconclusive"


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("settings", {"config": load_config(None, [*SETTINGS, "seed=1"])}),
        ("policy", {"policy": None}),
        ("retain", {"retain": None}),
    ],
)
def test_a_folder_of_another_run(copied: Path, random_folder: Path, what: str, changes: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match=f"(?s)started with other inputs.*{what}.*--overwrite"):
        honour(make_options(copied, random_folder, **changes))


def test_other_rows_are_another_run(copied: Path, random_folder: Path) -> None:
    options = make_options(copied, random_folder)
    write_examples(options.request / "rows.jsonl", [replace(row, answer="Nobody.") for row in load_examples(options.request)])
    with pytest.raises(OutputError, match="other request"):
        honour(options)


def test_without_its_key_a_run_cannot_go_on(copied: Path, random_folder: Path) -> None:
    (copied / "out.key").unlink()
    with pytest.raises(ConfigError, match=r"the key of the run in the folder is missing"):
        honour(make_options(copied, random_folder))


def test_a_model_that_does_not_know_is_refused_before_anything_is_trained(tmp_path: Path, random_folder: Path) -> None:
    with pytest.raises(ModelError, match="does not know what it is to forget"):
        honour(make_options(tmp_path, random_folder, allow_unknown=False, without=tuple(KINDS)))
    assert not (tmp_path / "out" / "work" / "unlearn").exists()


def test_ids_must_differ_from_those_of_the_retain_set(tmp_path: Path, random_folder: Path) -> None:
    options = make_options(tmp_path, random_folder)
    assert options.retain is not None
    write_examples(options.retain, [replace(example(30, answer="No."), id="row-2")])
    with pytest.raises(DataError, match=r"(?s)retain.jsonl:1: the same id is in the forget set and in the retain set.*rows.jsonl:3"):
        honour(options)


@pytest.mark.parametrize(
    ("changes", "problem"), [({"model": None}, "starts from one model"), ({"earlier": (Path("x"),)}, "used without --after")]
)
def test_options_that_contradict_each_other(tmp_path: Path, random_folder: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        honour(replace(make_options(tmp_path, random_folder), **changes))


def test_a_method_without_training_leaves_no_adapter_to_compare_with(tmp_path: Path, random_folder: Path) -> None:
    request = make_request(tmp_path / "mine", id=None)
    config = load_config(None, ["method=manu", "adapter=null"])
    done = honour(make_options(tmp_path, random_folder, request=request, config=config, without=tuple(KINDS)))
    assert done.record["request"]["id"].startswith("request-") and done.record["procedure"]["method"] == "manu"
    assert done.record["verification"]["export"]["tensors"] is None


@pytest.mark.parametrize(
    ("settings", "without"), [(SETTINGS, KINDS), pytest.param(("method=manu", "adapter=null"), (), marks=pytest.mark.slow)]
)
def test_a_dry_run_measures_and_writes_nothing(
    tmp_path: Path, random_folder: Path, settings: tuple[str, ...], without: tuple[Kind, ...]
) -> None:
    """Also of an edit, which takes no steps, and of rows that would be made."""
    options = make_options(tmp_path, random_folder, config=load_config(None, settings), without=without)
    before = sorted(tmp_path.rglob("*"))
    with Stages(quiet=True) as stages:
        found = estimate_run(options, stages=stages)
    assert sorted(tmp_path.rglob("*")) == before
    seconds = found.as_json()["seconds"]
    assert list(seconds) == list(steps.STEPS) and all(seconds[name] > 0 for name in ("preflight", "unlearn", "evaluate", "audit"))


def test_a_run_goes_on_from_the_result_of_another(copied: Path, random_folder: Path) -> None:
    """Trained from the first result, and audited against the model before both."""
    first = json.loads((copied / "out" / "record.json").read_text("utf-8"))
    given = make_options(copied, random_folder, without=tuple(KINDS))
    options = replace(given, model=None, continued=copied / "out", out=copied / "more")
    done = honour(options).record
    assert done["model"]["before"]["files"] == first["model"]["before"]["files"]
    assert done["model"]["continued"] == sha256(copied / "out" / "record.json") and first["model"]["continued"] is None
    assert done["verification"]["export"]["same_answers"] == 1.0 and weights(copied / "more") != weights(copied / "out")
    other = make_request(copied / "other", first=4)
    with pytest.raises(ConfigError, match="about another request"):
        honour(replace(options, request=other, out=copied / "third"))
    # A finished copy stands in for the folder that the replay ran in.
    shutil.copytree(copied / "more", copied / "again")
    with Stages(quiet=True) as stages:
        assert replay(ReplayOptions(copied / "more", copied / "again"), stages=stages).equal
        with pytest.raises(DataError, match="earlier run: another record"):
            replay(ReplayOptions(copied / "more", copied / "again", earlier_run=copied / "more"), stages=stages)


def test_what_is_in_the_place_of_the_key_is_left_alone(tmp_path: Path, random_folder: Path) -> None:
    (tmp_path / "out.key").symlink_to("nowhere")
    with pytest.raises(OutputError, match="cannot write the key: File exists"):
        honour(make_options(tmp_path, random_folder))
    assert (tmp_path / "out.key").is_symlink() and not (tmp_path / "out").exists()


def test_a_run_that_goes_on_from_another_does_not_replace_it(copied: Path, random_folder: Path) -> None:
    with pytest.raises(OutputError, match="an input of the run lies in the output folder"):
        honour(replace(make_options(copied, random_folder), model=None, continued=copied / "out", overwrite=True))
