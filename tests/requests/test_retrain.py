"""Retraining as a request: whose rows are refused, what the record says, and that a stopped run ends with the same weights."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import example
from vgid.commands import app
from vgid.config import resolve
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError, ModelError
from vgid.progress import Stages
from vgid.requests import retrain as module
from vgid.requests.forget import ForgetResult
from vgid.requests.keys import read_key
from vgid.requests.manifest import verify_record
from vgid.requests.record import Exact
from vgid.requests.replay import ReplayOptions, replay
from vgid.requests.request import parse_request
from vgid.requests.retrain import RetrainOptions, conclude, of_the_request, retrain

from .runs import honour, make_options, make_request

SETTINGS = ("training.steps=3", "training.retain_batch=2", "training.checkpoint_every=1", "validation.every=0")


def options_in(root: Path, model: Path, **changes: Any) -> RetrainOptions:
    """A request about four people, and training rows about eight others."""
    if not (root / "request").exists():
        make_request(root / "request")
        write_examples(root / "train.jsonl", [example(n, answer="I do not know.") for n in range(20, 28)])
    config = resolve(None, SETTINGS, method="finetune")
    options = RetrainOptions(str(model), root / "request", root / "train.jsonl", root / "out", config, max_rows=4)
    return replace(options, **changes)


def run(options: RetrainOptions) -> ForgetResult:
    with Stages(quiet=True) as stages:
        return retrain(options, stages=stages)


@pytest.fixture(scope="module")
def retrained(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ForgetResult]:
    """Rows of the request lay among the training rows, and were left out."""
    root = tmp_path_factory.mktemp("retrained")
    options = options_in(root, random_folder, leave_out=True)
    write_examples(options.retain, [*load_examples(options.retain), *load_examples(options.request)])
    return root, run(options)


def test_the_record_says_exact_and_names_nobody(retrained: tuple[Path, ForgetResult]) -> None:
    root, done = retrained
    record = done.record
    assert record["conclusion"]["statement"].startswith("Exact: ") and "vidence" not in record["conclusion"]["statement"]
    assert record["exact"]["taken_out"] == 4 and record["data"]["retain_rows"] == 8 and record["verification"]["attacks"] == {}
    assert record["conclusion"]["status"] == "inconclusive" and not done.passed  # three steps teach nothing
    assert "did not learn its rows" in record["conclusion"]["next_steps"][0]
    key = read_key(root / "out.key")
    assert record["data"]["retain_commitment"] == key.rows(load_examples(root / "train.jsonl")[:8])
    assert verify_record(root / "out", key, done.sha256).problems == ()
    page = (root / "out" / "record.html").read_text("utf-8")
    assert "Trained again" in page and "Thresholds were fixed" not in page and "Anna" not in page + json.dumps(record)
    assert "No attempt was made to get the facts back" in page and "What was tried" not in page and "no longer gave these" not in page


def test_the_page_shows_what_was_found_and_no_audit(retrained: tuple[Path, ForgetResult]) -> None:
    root, done = retrained
    found, page = done.record["exact"], (root / "out" / "record.html").read_text("utf-8")
    tiles = re.findall('<span class="label">(.*?)</span>.*?<b>(.*?)</b>', page)
    shown = (("Of the request answered", found["answers"]), ("Of the training rows learned", found["learned"]))
    status = ("Trained again", done.record["conclusion"]["status"])
    assert tiles == [status, *((label, f"{100 * share:.0f}\N{NO-BREAK SPACE}%") for label, share in shown)]
    assert "unknown" not in page.partition("</header>")[0] and "<summary>Policy" not in page


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_weights(
    retrained: tuple[Path, ForgetResult], tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in every step once its work is done; the training rows are those that were left in the other run."""
    real, stopped = dict(module.STEPS), []

    def stopping(name: str) -> Any:
        def step(context: Any) -> Any:
            files = real[name](context)
            if name not in stopped:
                stopped.append(name)
                raise InterruptedError(name)
            return files

        return step

    monkeypatch.setattr(module, "STEPS", {name: stopping(name) for name in real})
    for name in real:
        with pytest.raises(InterruptedError, match=name):
            run(options_in(tmp_path, random_folder))
    done = run(options_in(tmp_path, random_folder))
    one, two = (root / "out" / "merged" / "model.safetensors" for root in (retrained[0], tmp_path))
    assert one.read_bytes() == two.read_bytes() and done.record["exact"]["taken_out"] == 0


ROWS = (
    Example("a", "Who is this?", "Ann Lee.", subject="p1"),
    Example("b", "Where does she live?", "Oslo.", subject="p1"),
)


@pytest.mark.parametrize(
    ("row", "sign"),
    [
        (Example("a", "What?", "x"), "an id of the request"),
        (Example("x", "who  is this", "x"), "a question of the request about the same pictures"),
        (Example("x", "What?", "x", subject="p1"), "a subject of the request"),
        (Example("x", "Who knows ANN LEE?", "x"), "the name in request.yaml"),
        (Example("x", "Who knows Joann Leeds?", "x", subject="p2"), None),
    ],
)
def test_signs_of_the_persons_rows(tmp_path: Path, row: Example, sign: str | None) -> None:
    write_examples(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "request.yaml").write_text("name: Ann Lee\n")
    found = of_the_request(parse_request(tmp_path), [row])
    assert [name for name, rows in found.items() if rows] == ([sign] if sign else [])


def test_pictures_and_scopes(tmp_path: Path) -> None:
    """Another question about her picture is hers; where only her address must go, it may stay."""
    make_request(tmp_path, rows=2)
    other = replace(load_examples(tmp_path)[0], id="other", question="What is the background?", subject=None)
    found = of_the_request(parse_request(tmp_path), [other])
    assert [name for name, rows in found.items() if rows] == ["a picture of the request"]
    (tmp_path / "request.yaml").write_text("scope: [row-0]\n")
    assert not any(of_the_request(parse_request(tmp_path), [other]).values())


def test_what_it_refuses(tmp_path: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_in(tmp_path, random_folder)
    write_examples(options.retain, [*load_examples(options.retain), replace(example(1), id="again")])
    with pytest.raises(DataError, match=r"(?s)train.jsonl:9: rows of the request are among.*1 with a subject.*--leave-out") as error:
        run(options)
    assert "Anna" not in str(error.value)
    with pytest.raises(DataError, match="no rows are left to train on"):
        write_examples(tmp_path / "hers.jsonl", load_examples(options.request))
        run(replace(options, retain=tmp_path / "hers.jsonl", leave_out=True))
    with pytest.raises(ConfigError, match="retraining is fine-tuning"):
        run(replace(options, config=resolve(None, [])))
    with pytest.raises(DataError, match="there is no such folder of pictures"):
        run(replace(options, config=resolve(None, ["data.image_root=nowhere"], method="finetune")))
    monkeypatch.setattr(module, "KNOWN_ACCURACY", 0.0)  # a random model answers nothing
    with pytest.raises(ModelError, match="so it has seen the person"):
        run(replace(options, leave_out=True))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.key").exists()


def test_no_request_goes_on_from_it(retrained: tuple[Path, ForgetResult], random_folder: Path) -> None:
    root = retrained[0]
    (root / "forget").mkdir()
    given = replace(make_options(root / "forget", random_folder, request=root / "request"), model=None)
    with pytest.raises(ConfigError, match=r"(?s)has no earlier requests.*--model"):
        honour(replace(given, after=root / "out"))
    with pytest.raises(ConfigError, match="cannot be continued"):
        honour(replace(given, continued=root / "out"))


def test_when_it_is_exact_and_useful() -> None:
    found = Exact(searched_for=["an id"], taken_out=0, base_answers=0.0, answers=0.1, learned=0.9)
    assert conclude(found).status == "pass" and conclude(found).next_steps == []
    leak = conclude(found.model_copy(update={"answers": 0.5}))
    assert leak.status == "inconclusive" and "state the same facts" in leak.next_steps[0]


def test_the_command(retrained: tuple[Path, ForgetResult], random_folder: Path) -> None:
    """The run is complete, so the same command only shows it."""
    root = retrained[0]
    words = ["retrain", "--model", str(random_folder), "--request", str(root / "request"), "--retain", str(root / "train.jsonl")]
    words += ["--out", str(root / "out"), "--leave-out", "--max-rows", "4"]
    ended = CliRunner().invoke(app, [*words, *(word for setting in SETTINGS for word in ("--set", setting))])
    assert ended.exit_code == 3, ended.output
    assert "trained on" in ended.stdout and "did not learn its rows" in " ".join(ended.stdout.split())


def test_it_is_replayed_from_its_record(retrained: tuple[Path, ForgetResult], tmp_path: Path) -> None:
    """A finished copy stands in for the replay's folder, as in `test_replay.py`; rows that were left out may be gone by now."""
    root, done = retrained
    shutil.copytree(root / "out", tmp_path / "again")
    options = ReplayOptions(root / "out", tmp_path / "again")
    with Stages(quiet=True) as stages:
        found = replay(options, stages=stages)
    assert found.equal and found.replayed == done.sha256
    write_examples(tmp_path / "cut.jsonl", load_examples(root / "train.jsonl")[:7])
    with Stages(quiet=True) as stages, pytest.raises(DataError, match="retain: other rows"):
        replay(replace(options, retain=tmp_path / "cut.jsonl"), stages=stages)


@pytest.mark.slow
def test_it_is_trained_again_from_its_record(retrained: tuple[Path, ForgetResult], tmp_path: Path) -> None:
    """The whole run once more; rows left out in the first run are no longer among those given, and all is equal but that count."""
    root = retrained[0]
    write_examples(tmp_path / "clean.jsonl", load_examples(root / "train.jsonl")[:8])
    with Stages(quiet=True) as stages:
        found = replay(ReplayOptions(root / "out", tmp_path / "again", retain=tmp_path / "clean.jsonl"), stages=stages)
    assert found.weights == {} and found.figures == {"exact.taken_out": (4, 0)}
