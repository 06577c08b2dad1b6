"""Unlearning and evaluation of a benchmark in one command: what it leaves, how it goes on, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from tests.benchmarks import fixtures
from vgid.benchmarking import bench
from vgid.benchmarking.bench import BenchConfig, choose_benchmark, open_sources, open_training, read_training_rows, run_bench
from vgid.benchmarking.store import model_fingerprint
from vgid.benchmarks.base import BENCHMARKS
from vgid.commands import app
from vgid.config import load_config, read_recipe, resolve
from vgid.errors import ConfigError, DataError, OutputError, StoppedError
from vgid.models.loading import load_model
from vgid.progress import Stages

QUICK = ["training.steps=2", "validation.every=0", "method.answers=[recorded]", "training.forget_batch=2", "training.retain_batch=2"]
ONE_WORD = {"max_new_tokens": 2, "few_shot": 0}


@pytest.fixture(scope="module")
def folder(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with a context that holds a benchmark's questions."""
    loaded = load_model(random_folder)
    loaded.processor.tokenizer.model_max_length = 8192
    path = tmp_path_factory.mktemp("long") / "model"
    loaded.model.save_pretrained(path)
    loaded.processor.save_pretrained(path)
    return path


def mllmu(root: Path, *settings: str) -> BenchConfig:
    given = {"data": str(fixtures.write_mllmu(root, people=4)), "train": None, "forget": "5"}
    return choose_benchmark(load_config(overrides=[*QUICK, *settings]), "mllmu", given, ONE_WORD)


def run(model: Path, config: BenchConfig, out: Path, **options: Any) -> dict[str, Any]:
    with Stages(quiet=True) as stages:
        return run_bench(str(model), config, out, allow_unknown=True, stages=stages, **options)


def test_the_command_line_comes_before_the_recipe() -> None:
    config, recipe = load_config("llava-1.5-7b-mllmu-paper"), read_recipe("llava-1.5-7b-mllmu-paper").benchmark
    nothing = {"data": None, "train": None, "forget": None}
    chosen = choose_benchmark(config, None, nothing, {}, recipe)
    assert chosen.run == config and (chosen.benchmark.name, chosen.benchmark.forget) == ("mllmu", "5")
    assert (chosen.benchmark.data, chosen.benchmark.train) == ("MLLMMU/MLLMU-Bench", "MLLMMU/baseline_train_split")
    changed = choose_benchmark(config, "mllmu", {**nothing, "data": "here", "forget": "10"}, {"few_shot": 0}, recipe).benchmark
    assert (changed.data, changed.train, changed.forget, changed.protocol) == ("here", None, "10", {"few_shot": 0})
    with pytest.raises(ConfigError, match=r"(?s)the recipe is for another benchmark.*expected: mllmu.*found: clear"):
        choose_benchmark(config, "clear", nothing, {}, recipe)
    with pytest.raises(ConfigError, match="there is no benchmark to run"):
        choose_benchmark(load_config(), None, nothing, {})


def test_rows_for_unlearning_may_be_elsewhere(tmp_path: Path) -> None:
    given = {"data": str(fixtures.write_mllmu(tmp_path / "a")), "train": str(fixtures.write_mllmu_training(tmp_path / "b")), "forget": "5"}
    chosen = choose_benchmark(load_config(overrides=QUICK), "mllmu", given, {})
    config, sources = chosen.run, open_sources(chosen.benchmark)
    forget, retain = read_training_rows(sources.training, config, skip_bad_rows=False)
    # The training splits have two questions a profile; of eight to retain two steps of two rows are drawn, and validation's share.
    assert [row.answer for row in forget] == ["Person 0.", "Oslo.", "Person 1.", "Oslo."]
    assert len(retain) == 8 and next(sources.evaluation.items()).split == "forget"
    fewer = config.model_copy(update={"validation": config.validation.model_copy(update={"rows": 1})})
    assert len(read_training_rows(sources.training, fewer, skip_bad_rows=False)[1]) == 2 * 2 + 1
    alone = open_training(chosen.benchmark.model_copy(update={"data": str(tmp_path / "nowhere")}))  # fine-tuning asks no questions
    assert read_training_rows(alone, config, skip_bad_rows=False)[0] == forget


def test_one_command_unlearns_and_asks(tmp_path: Path, folder: Path) -> None:
    config, out = mllmu(tmp_path / "data"), tmp_path / "out"
    results = run(folder, config, out, reference=str(folder))
    assert results == json.loads((out / "results.json").read_text()) and results["schema"] == "vgid.benchmark/1"
    assert set(results["figures"]) == {"base", "unlearned", "retrained"} and results["deviations"] == ONE_WORD
    assert results["unlearning"]["method"] == "vgid" and results["unlearning"]["config"]["training"]["steps"] == 2
    assert (results["unlearning"]["forget_rows"], results["unlearning"]["retain_rows"]) == (2, 2)
    assert len(results["unlearning"]["curves"]["forget"]) == 2 and "Unlearning: loss, recall and drift" in (out / "report.html").read_text()
    assert "came with a picture" in results["notes"][-1]
    weights = {name: known["weights"] for name, known in results["models"].items()}
    assert weights["base"] == weights["retrained"] != weights["unlearned"]
    assert sorted(path.name for path in out.iterdir()) == [".vgid-run", "report.html", "results.json", "unlearned"]
    assert (out / "unlearned" / "merged" / "config.json").is_file()
    card = ModelCard.load(out / "unlearned" / "merged" / "README.md")
    told = {(each.dataset_name, each.metric_type): each.metric_value for each in card.data.eval_results or []}
    assert told == {(f"{f['split']}, {f['task']}", f["metric"]): round(f["value"], 4) for f in results["figures"]["unlearned"]}
    page = (out / "report.html").read_text()
    assert "training.steps" in page and "arXiv 2606.00105" in page and weights["unlearned"][:12] in page
    for secret in ("Oslo", "Person 0", "Where is home"):
        assert secret not in page + (out / "results.json").read_text() + (out / "unlearned" / "results.json").read_text()
    with pytest.raises(OutputError, match="the output folder is not empty"):
        run(folder, config, out)


@pytest.mark.slow
def test_from_a_base_it_makes_the_model_that_knows_and_the_reference(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = mllmu(tmp_path / "data"), tmp_path / "out"
    folder = Path(shutil.copytree(folder, tmp_path / "base"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    steps = ["training.steps=2", "training.retain_batch=2", "training.learning_rate=1e-3", "validation.every=0"]
    learning = resolve(None, steps, method="finetune")
    ask = bench.ask_models
    with monkeypatch.context() as patched:
        patched.setattr(bench, "_unlearn", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, config, out, from_base=learning)
    first = {path: path.stat().st_mtime_ns for path in out.glob("*/merged/model.safetensors")}
    asked: dict[str, Any] = {}
    monkeypatch.setattr(bench, "ask_models", lambda *given, **options: asked.update(given[1]) or ask(*given, **options))
    results = run(folder, config, out, from_base=learning)
    assert asked["base"][0] == str(out / "finetuned" / "merged") and asked["retrained"][0] == str(out / "reference" / "merged")
    assert len(first) == 2 and all(path.stat().st_mtime_ns == then for path, then in first.items())  # they are not made twice
    weights = {model_fingerprint(load_model(path)) for path in (folder, *(each[0] for each in asked.values()))}
    assert len(weights) == 4
    for name in ("adapter", "merged"):  # of what was given, not of the model in between
        card = ModelCard.load(out / "unlearned" / name / "README.md")
        assert card.data.license == "mit" and "fine-tuned before" in card.text and str(tmp_path) not in card.content
    made = results["finetuning"]
    assert made["base"] == str(folder) and made["finetuned"]["rows_trained"] == {"learned": 4, "left_out": 0}
    assert made["reference"]["rows_trained"] == {"learned": 2, "left_out": 2} and len(made["reference"]["curves"]["retain"]) == 2
    assert sorted(each.name for each in out.iterdir()) == [
        ".vgid-run", "finetuned", "reference", "report.html", "results.json", "unlearned",
    ]  # fmt: skip


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_run_goes_on(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = mllmu(tmp_path / "data"), tmp_path / "out"
    whole = run(folder, config, tmp_path / "whole")
    ask, unlearned = bench.ask_models, list[Path]()

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "ask_models", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder, config, out)
    monkeypatch.setattr(bench, "ask_models", ask)
    with pytest.raises(OutputError, match=r"(?s)another run.*other settings"):
        run(folder, mllmu(tmp_path / "data", "training.learning_rate=1e-3"), out)
    fixtures.write_parquet(tmp_path / "data" / "forget_5", [fixtures.profile(0)])
    with pytest.raises(OutputError, match=r"(?s)another run.*other forget rows"):
        run(folder, config, out)
    fixtures.write_mllmu(tmp_path / "data", people=4)

    def count(*arguments: Any, **options: Any) -> None:
        unlearned.append(arguments[4])

    def stopped(*_: Any, **__: Any) -> None:
        raise StoppedError("stopped", number=15, fix="give --resume")

    monkeypatch.setattr(bench, "unlearn", stopped)
    with pytest.raises(StoppedError, match="the same command goes on from here") as caught:
        run(folder, config, tmp_path / "third")
    assert caught.value.exit_code == 143
    monkeypatch.setattr(bench, "unlearn", count)
    resumed = run(folder, config, out)
    assert unlearned == [] and resumed["figures"] == whole["figures"]
    assert {name: known["weights"] for name, known in resumed["models"].items()} == {
        name: known["weights"] for name, known in whole["models"].items()
    }


def test_what_cannot_run_is_an_error_before_anything_is_written(tmp_path: Path, folder: Path) -> None:
    data = str(fixtures.write_clear(tmp_path / "clear"))
    given = {"data": data, "train": None, "forget": "10"}
    with pytest.raises(ConfigError, match=r"(?s)icu changes the question.*vgid compare"):
        run(folder, choose_benchmark(resolve(method="icu"), "clear", given, {}), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"(?s)never saw the forget set.*--protocol"):
        run(folder, choose_benchmark(load_config(overrides=QUICK), "clear", given, {}), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(OutputError, match="not empty"):
        run(folder, mllmu(tmp_path / "data"), tmp_path / "full")
    damaged = fixtures.profile(1) | {"image": {"bytes": b"no picture", "path": None}}
    fixtures.write_parquet(tmp_path / "data" / "forget_5", [fixtures.profile(0), damaged])
    config = choose_benchmark(
        load_config(overrides=QUICK), "mllmu", {"data": str(tmp_path / "data"), "train": None, "forget": None}, ONE_WORD
    )
    with pytest.raises(DataError, match=r"parquet:2: image of unknown format"):
        run(folder, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "people"])
def test_every_benchmark_runs(name: str, tmp_path: Path, folder: Path) -> None:
    from tests.benchmarks.test_others import WRITERS

    protocol = {"max_new_tokens": 2, **({"generation_tokens": 2} if name == "umu" else {})}
    part = "10" if name == "clear" else None
    config = choose_benchmark(
        load_config(overrides=QUICK), name, {"data": str(WRITERS[name](tmp_path / "data")), "train": None, "forget": part}, protocol
    )
    results = run(folder, config, tmp_path / "out", reference=str(folder))
    assert set(results["figures"]) == {"base", "unlearned", "retrained"} and results["unlearning"]["forget_rows"] > 0


@pytest.mark.slow
def test_a_killed_command_goes_on_and_gives_the_same_results(tmp_path: Path, folder: Path) -> None:
    data = fixtures.write_mllmu(tmp_path / "data", people=12, forget=4)
    settings = [each for value in [*QUICK[1:], "training.steps=12", "training.checkpoint_every=1"] for each in ("--set", value)]
    protocol = [each for name, value in {**ONE_WORD, "max_new_tokens": 4}.items() for each in ("--protocol", f"{name}={value}")]
    command = [sys.executable, "-m", "vgid", "bench", "mllmu", "--data", data, "--model", folder, *settings, *protocol, "--allow-unknown"]
    command += ["--batch-size", "2", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def kill_when(out: Path, ready: Any) -> None:
        process = subprocess.Popen(
            [str(part) for part in (*command, out)], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        started = time.monotonic()
        while time.monotonic() - started < 180 and not ready(out):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "results.json").exists()

    def training(out: Path) -> bool:
        return any((out / "unlearned" / "checkpoint").glob("*"))

    def asking(out: Path) -> bool:
        file = out / "answers" / "base.jsonl"
        return file.exists() and file.read_bytes().count(b"\n") > 6

    kill_when(tmp_path / "cut", training)
    kill_when(tmp_path / "cut", asking)
    both = []
    for out in (tmp_path / "cut", tmp_path / "whole"):
        done = subprocess.run([str(part) for part in (*command, out)], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        both.append(json.loads((out / "results.json").read_text()))
    assert both[0]["figures"] == both[1]["figures"]
    assert both[0]["models"]["unlearned"]["weights"] == both[1]["models"]["unlearned"]["weights"]


def test_the_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, message in (
        (["bench", "--model", "o/x", "--out", str(tmp_path / "o")], "there is no benchmark to run"),
        (
            ["bench", "clear", "--recipe", "llava-1.5-7b-mllmu-paper", "--model", "o/x", "--out", str(tmp_path / "o")],
            "for another benchmark",
        ),
        (["bench", "mllmu", "--model", "o/x", "--out", str(tmp_path / "o")], "MLLMU-Bench needs its data"),
        (
            ["bench", "mllmu", "--data", str(tmp_path), "--protocol", "shots=1", "--model", "o/x", "--out", str(tmp_path / "o")],
            "has no such settings",
        ),
    ):
        found = runner.invoke(app, arguments).exception
        assert isinstance(found, ConfigError | DataError) and message in str(found), arguments
