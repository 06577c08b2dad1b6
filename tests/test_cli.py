"""The command line: what it writes where, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from tests.conftest import Vgid, example, png
from vgid.commands import app
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples, write_parquet


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    return subprocess.run([sys.executable, "-m", "vgid", *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_examples(tmp_path / "data" / "forget.jsonl", [example(n) for n in range(6)])
    write_examples(tmp_path / "data" / "retain.jsonl", [example(n, answer="I do not know.") for n in range(10, 16)])
    return tmp_path / "data"


QUICK = (
    "--set",
    "training.steps=2",
    "--set",
    "validation.every=0",
    "--set",
    "method.answers=[recorded]",
    "--set",
    "method.replay.narrow=false",
    "--max-rows",
    4,
    "--allow-unknown",
)


def test_help_and_version() -> None:
    out = process("--help")
    assert out.returncode == 0 and all(name in out.stdout for name in ("demo", "unlearn", "evaluate", "data"))
    assert process("--version").stdout.startswith("vgid 0.")
    assert process("unlern").returncode == 2


def test_threads_without_work_sleep() -> None:
    """PyTorch reads this once, so it must be set before any command imports it."""
    code = "import os, sys, vgid.commands as c\nsys.argv = ['vgid', '--version']\nassert 'torch' not in sys.modules\ntry: c.main()\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules and os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_every_command_that_loads_a_model_can_trust_its_code() -> None:
    """All that take `--model`, `--before` or a folder with one; `record` and `purge` load none."""
    commands = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    loading = {name for name, options in commands.items() if options & {"--model", "--base", "--before"}}
    assert loading == {name for name, options in commands.items() if "--trust-remote-code" in options}
    assert loading >= {"unlearn", "preflight", "evaluate", "audit", "bench", "export", "forget", "inspect"}
    assert loading >= {"verify-export", "verify-served"}


def test_methods_are_listed(vgid: Vgid) -> None:
    listed = vgid("methods", "--json")
    rows = json.loads(listed.stdout)
    assert {"name": "npo", "kind": "trained", "paper": "2404.05868"}.items() <= next(row for row in rows if row["name"] == "npo").items()


def test_unlearn_by_another_method(random_folder: Path, data: Path, tmp_path: Path, vgid: Vgid) -> None:
    files = ("--model", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl", "--out", tmp_path / "out")
    run = vgid("unlearn", *files, "--method", "manu", "--max-rows", 2, "--allow-unknown", "--json")
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    assert results["method"] == "manu" and results["training"] == "nothing to train"
    assert (tmp_path / "out" / "merged").is_dir() and not (tmp_path / "out" / "adapter").exists()


def test_unlearn_writes_checkpoints_and_results(random_folder: Path, data: Path, tmp_path: Path, vgid: Vgid) -> None:
    out = tmp_path / "out"
    arguments = ("--model", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl", "--out", out)
    run = vgid("unlearn", *arguments, *QUICK, "--seed", 3, "--json")
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    assert results == json.loads((out / "results.json").read_text())
    assert results["schema"] == "vgid.results/1" and results["method"] == "vgid" and results["seed"] == 3
    assert set(results["splits"]) == {"forget", "retain"} and results["splits"]["forget"]["base"]["n"] == 4
    assert set(results["splits"]["forget"]["unlearned"]) == {"n", "accuracy", "rouge_l", "probability", "refusal_rate", "accuracy_ci"}
    assert (out / "merged" / "model.safetensors").is_file() and (out / "adapter" / "adapter_model.safetensors").is_file()
    assert "Anna" not in (out / "results.json").read_text() and "Anna" not in run.stderr

    again = vgid("evaluate", "--model", out / "merged", "--base", random_folder, "--data", data / "forget.jsonl", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["splits"]["forget"].keys() == {"base", "unlearned"}

    full = vgid("unlearn", *arguments, *QUICK)
    assert full.returncode == 2 and "the output folder is not empty" in full.stderr
    table = vgid("unlearn", *arguments, *QUICK, "--overwrite")
    assert table.returncode == 0 and "forget" in table.stdout and str(out / "results.json") in table.stdout


def test_preflight_comes_first(random_folder: Path, data: Path, tmp_path: Path, vgid: Vgid) -> None:
    arguments = ("--model", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl")
    run = vgid("unlearn", *arguments, "--out", tmp_path / "out")
    assert run.returncode == 2 and "the model does not know what it is to forget" in run.stderr and not run.stdout
    assert "Preflight" in run.stderr and "Anna" not in run.stderr and not (tmp_path / "out").exists()
    dry = vgid("unlearn", *arguments, "--out", tmp_path / "out", "--dry-run", "--json", "--recipe", "no-retain")
    found = json.loads(dry.stdout)
    assert dry.returncode == 2 and not found["ready"] and found["schema"] == "vgid.preflight/1" and "Anna" not in dry.stdout
    assert not (tmp_path / "out").exists()


def test_bad_data_is_found_before_a_model_is_looked_for(data: Path, tmp_path: Path, vgid: Vgid) -> None:
    lines = (data / "forget.jsonl").read_text().splitlines()
    (data / "bad.jsonl").write_text("\n".join([lines[0], "{", '{"question": ""}']))
    arguments = ("--retain", data / "retain.jsonl", "--out", tmp_path / "out")
    run = vgid("unlearn", "--model", "no/where", "--forget", data / "bad.jsonl", *arguments)
    assert run.returncode == 2 and "2 problems" in run.stderr and "bad.jsonl:2: malformed JSON" in run.stderr
    same = vgid("unlearn", "--model", "no/where", "--forget", data / "retain.jsonl", *arguments)
    assert same.returncode == 2 and "in the forget set and in the retain set" in same.stderr
    check = vgid("data", "check", data / "bad.jsonl")
    assert check.returncode == 2 and "1 good rows, 2 problems" in check.stdout
    assert vgid("data", "check", data / "forget.jsonl").returncode == 0


def test_a_run_that_fails_ends_with_1(random_folder: Path, data: Path, tmp_path: Path, vgid: Vgid) -> None:
    files = ("--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl", "--out", tmp_path / "out")
    loud = ("--set", "training.learning_rate=1e30", "--set", "training.max_grad_norm=1e30", "--set", "training.warmup_steps=0")
    steps = ("--set", "training.steps=20", "--set", "validation.every=0", "--set", "method.answers=[recorded]", "--max-rows", 0)
    steps += ("--set", "method.replay=null")
    run = vgid("unlearn", "--model", random_folder, *files, *loud, *steps, "--allow-unknown")
    assert run.returncode == 1 and "the loss is nan at step" in run.stderr and "Traceback" not in run.stderr


def test_folders_of_others_are_never_replaced(random_folder: Path, data: Path, tmp_path: Path, vgid: Vgid) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_bytes(png())
    files = ("--forget", data / "forget.jsonl", "--out", precious, "--overwrite")
    run = vgid("unlearn", "--model", random_folder, *files)
    assert run.returncode == 2 and "was not made by vgid" in run.stderr and (precious / "thesis.txt").exists()


def test_a_parquet_file_is_the_first_that_a_process_reads(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", [example(n) for n in range(3)])
    run = process("data", "check", tmp_path / "rows.parquet")
    assert run.returncode == 0 and "3 good rows, 0 problems" in run.stdout, run.stderr


def test_skip_bad_rows_lists_them(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (data / "forget.jsonl").open("a") as file:
        file.write("{\n")
    assert len(load_examples(data / "forget.jsonl", skip_bad_rows=True)) == 6
    assert "forget.jsonl:7: malformed JSON" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_run_that_is_interrupted_says_how_to_go_on_and_goes_on(random_folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = ("--model", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl", "--out", out, "--max-rows", 2)
    changes = ("training.steps=12", "method.replay=null", "validation.every=0", "method.answers=[recorded]")
    settings = ("--allow-unknown", *(word for change in changes for word in ("--set", change)))
    words = ("unlearn", *files, *settings, "--set", "training.checkpoint_every=1")
    running = subprocess.Popen([sys.executable, "-m", "vgid", *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (out / "checkpoint" / "state.safetensors").is_file() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    stderr = running.communicate(timeout=300)[1]
    assert running.returncode == 130 and "SIGINT: finishing this step" in stderr and "the same command with --resume goes on" in stderr
    assert "Traceback" not in stderr
    plain = process(*words)
    assert plain.returncode == 2 and "add --resume to go on with the run in it" in plain.stderr
    both = process(*words, "--resume", "--overwrite")
    assert both.returncode == 2 and "--resume and --overwrite contradict each other" in both.stderr
    other = process(*words, "--resume", "--seed", 5)
    assert other.returncode == 2 and "found: other settings" in other.stderr
    done = process(*words, "--resume")
    assert done.returncode == 0 and "going on from the checkpoint of step" in done.stderr and not (out / "checkpoint").exists()
    again = process(*words, "--resume", "--json")
    assert again.returncode == 0 and "this run is complete" in again.stderr
    assert json.loads(again.stdout) == json.loads((out / "results.json").read_text())
    wrong = process(*words, "--resume", "--seed", 5)
    assert wrong.returncode == 2 and "a complete run of something else" in wrong.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_signal_before_training_ends_at_once(random_folder: Path, data: Path, tmp_path: Path) -> None:
    words = ("unlearn", "--model", random_folder, "--forget", data / "forget.jsonl", "--out", tmp_path / "out")
    command = "import os, signal, vgid.data.sources as s; s.load_examples = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)"
    run = subprocess.run(
        [sys.executable, "-c", f"{command}; import vgid.commands; vgid.commands.main()", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 143 and "stopped by SIGTERM; `vgid unlearn` and `finetune` go on with --resume" in run.stderr
    assert "Traceback" not in run.stderr and not (tmp_path / "out").exists()


def test_settings_are_printed_with_their_meaning_and_read_back(tmp_path: Path, vgid: Vgid) -> None:
    words = ("--recipe", "paper", "--method", "npo", "--set", "method.beta=0.3", "--seed", 3)
    shown = vgid("config", *words)
    assert shown.returncode == 0 and "  # inverse temperature" in shown.stdout and "beta: 0.3" in shown.stdout
    (tmp_path / "again.yaml").write_text(shown.stdout)
    again, plain = vgid("config", "--recipe", tmp_path / "again.yaml", "--json"), vgid("config", *words, "--json")
    assert again.returncode == 0 and json.loads(again.stdout) == json.loads(plain.stdout)


def test_recipes_are_listed(vgid: Vgid) -> None:
    rows = {row["name"]: row for row in json.loads(vgid("recipes", "--json").stdout)}
    assert rows["released"]["method"] == "vgid_released" and all(row["about"] for row in rows.values())
    assert "own-data" in vgid("recipes").stdout
