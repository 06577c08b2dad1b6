"""Two processes do what one does: the same losses, the same weights, one export."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from tests.training import large, worker
from vgid import processes
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.models.checkpoints import tensor_headers

ROOT = Path(__file__).parents[2]
LAUNCH = Path(str(files("vgid.recipes") / "launch"))
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2")
PORTS = iter(range(29700 + os.getpid() % 1000, 65000, 7))


def accelerate(name: str) -> tuple[str, ...]:
    return ("accelerate.commands.launch", "--config_file", str(LAUNCH / f"{name}.yaml"), "--num_processes", "2")


def start(launcher: tuple[str, ...], *words: object) -> subprocess.CompletedProcess[str]:
    if launcher:
        launcher += (
            "--master-port" if launcher is TORCHRUN or "torch.distributed.run" in launcher else "--main_process_port",
            str(next(PORTS)),
        )
    modules = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(modules), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *(["-m"] if launcher else []), *launcher, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


def work(launcher: tuple[str, ...], *words: object) -> subprocess.CompletedProcess[str]:
    return start(launcher, worker.__file__, *words)


def curves(out: Path) -> dict[str, list[list[float]]]:
    return json.loads((out / "curves.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def alone(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("alone")
    run = work((), random_folder, out)
    assert run.returncode == 0, run.stderr
    return out


def assert_as_alone(out: Path, alone: Path) -> None:
    """The same losses within 1e-5, step by step, and one whole export.

    Sums in another order differ by rounding, which Adam magnifies in an adapter where gradients are nearly 0, and hardly in merged weights.
    """
    assert curves(out).keys() == curves(alone).keys() >= {"forget", "retain"}
    for name, points in curves(alone).items():
        assert curves(out)[name] == [[step, pytest.approx(value, abs=1e-5)] for step, value in points]
    names = [sorted(path.name for path in folder.iterdir()) for folder in (out, alone)]
    assert names[0] == names[1] and {*names[0]} - {"adapter"} == {"curves.json", "merged"}
    weights = (("adapter/adapter_model.safetensors", 5e-5), ("merged/model.safetensors", 1e-5))
    for file, within in weights[0 if "adapter" in names[0] else 1 :]:
        expected, found = load_file(alone / file), load_file(out / file)
        assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in expected.items()}
        assert all(torch.allclose(found[name], expected[name], rtol=0, atol=within) for name in expected)


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        pytest.param(TORCHRUN, (), marks=pytest.mark.slow),
        pytest.param(TORCHRUN, ("training.micro_batch=1",), marks=pytest.mark.slow),
        pytest.param(accelerate("ddp"), (), marks=pytest.mark.slow),
        (TORCHRUN, ("training.shard=true", "examine")),
        pytest.param(accelerate("fsdp2"), ("training.micro_batch=1",), marks=pytest.mark.slow),
    ],
    ids=["ddp", "ddp, micro-batches", "ddp by accelerate", "fsdp2", "fsdp2 by accelerate, micro-batches"],
)
def test_two_processes_do_what_one_does(
    random_folder: Path, alone: Path, tmp_path: Path, launcher: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run = work(launcher, random_folder, tmp_path / "out", *words)
    assert run.returncode == 0, run.stderr
    assert_as_alone(tmp_path / "out", alone)
    if "examine" in words:
        assert_same_figures(json.loads(run.stdout.splitlines()[-1]), worker.examined(str(random_folder), alone))


def assert_same_figures(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Shards say what one process says of its own export."""
    for split, models in expected["splits"].items():
        for name, figures in models.items():
            here = found["splits"][split][name]
            assert here.pop("accuracy_ci") == figures.pop("accuracy_ci") and here == pytest.approx(figures, rel=1e-4)
    names = ("tensors", "compared_on", "same_answers", "warnings")
    assert [found["verified"][name] for name in names] == [expected["verified"][name] for name in names]
    assert found["verified"]["same_answers"] == 1.0 and found["verified"]["largest_difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed")
def test_deepspeed_does_what_one_process_does(random_folder: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    shipped = yaml.safe_load((LAUNCH / "deepspeed-zero2.yaml").read_text())
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(shipped | {"mixed_precision": "no", "use_cpu": True}))
    launcher = ("accelerate.commands.launch", "--config_file", str(tmp_path / "cpu.yaml"), "--num_processes", "2")
    run = work(launcher, random_folder, tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert_as_alone(tmp_path / "out", alone)


FULL = ("adapter=null", "training.learning_rate=1e-4")


@pytest.mark.slow
def test_all_parameters_in_shards_are_trained_as_in_one_process(random_folder: Path, tmp_path: Path) -> None:
    """Gradients, optimizer and the frozen copy that is the teacher are sharded too."""
    assert work((), random_folder, tmp_path / "alone", *FULL).returncode == 0
    run = work(TORCHRUN, random_folder, tmp_path / "out", *FULL, "training.shard=true")
    assert run.returncode == 0, run.stderr
    assert_as_alone(tmp_path / "out", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.skipif(not large.measurable(), reason="needs glibc 2.33")
def test_no_process_holds_a_whole_copy(tmp_path: Path) -> None:
    """From loading to the verified checkpoint, and when that is asked and verified anew; a shard is half of the model, and a few layers are
    gathered at a time."""
    size = large.build(tmp_path / "models")
    run = start(TORCHRUN, large.__file__, tmp_path / "models", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        assert 0.45 * size < json.loads((tmp_path / "out" / f"peak-{rank}.json").read_text()) < 0.8 * size
    merged = tmp_path / "out" / "large" / "merged"
    files = sorted(merged.glob("*.safetensors"))
    assert len(files) > 4 and all(file.stat().st_size < 1.1 * large.FILE_BYTES for file in files)
    index = json.loads((merged / "model.safetensors.index.json").read_text())
    assert {merged / name for name in index["weight_map"].values()} == set(files)
    # The file of the base is in bf16, and a model on a CPU is in float32.
    headers = (tensor_headers(folder) for folder in (tmp_path / "models" / "large", merged))
    before, after = ({name: header.shape for name, header in each.items()} for each in headers)
    assert before == after


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_they_go_on_together(random_folder: Path, alone: Path, tmp_path: Path) -> None:
    stopped = work(TORCHRUN, random_folder, tmp_path / "out", "training.shard=true", "stop")
    assert stopped.returncode != 0 and "stopped by SIGTERM at step 1 of 4" in stopped.stderr
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["checkpoint", "state.safetensors"]
    assert work(TORCHRUN, random_folder, tmp_path / "out", "training.shard=true", "resume").returncode == 0
    assert_as_alone(tmp_path / "out", alone)


@pytest.mark.slow
def test_the_command_in_two_processes(random_folder: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "forget.jsonl", worker.FORGET)
    write_examples(tmp_path / "retain.jsonl", worker.RETAIN)
    settings = [word for setting in worker.SETTINGS for word in ("--set", setting)]
    data = ("--forget", tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl", "--out", tmp_path / "out", "--max-rows", 3)
    run = start(TORCHRUN, "-m", "vgid", "unlearn", "--model", random_folder, *data, *settings, "--allow-unknown", "--json")
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert json.loads(run.stdout) == results
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".vgid-run", "adapter", "merged", "report.html", "results.json"]
    wrong = start(TORCHRUN, "-m", "vgid", "unlearn", "--model", random_folder, *data, "--set", "training.lerning_rate=1")
    assert wrong.returncode != 0 and wrong.stderr.count("did you mean 'learning_rate'?") == 1
    merged = ("--model", tmp_path / "out" / "merged", "--data", tmp_path / "forget.jsonl", "--out", tmp_path / "asked")
    run = start(TORCHRUN, "-m", "vgid", "evaluate", *merged, "--json")
    assert run.returncode == 0, run.stderr
    asked = json.loads((tmp_path / "asked" / "results.json").read_text())
    assert json.loads(run.stdout) == asked and asked["splits"]["forget"]["unlearned"]["n"] == len(worker.FORGET)
    run = start(TORCHRUN, "-m", "vgid", "verify-export", tmp_path / "out", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["same_answers"] == 1.0
    run = start(TORCHRUN, "-m", "vgid", "preflight", "--model", random_folder, *data[:4], "--allow-unknown", "--set", "training.shard=true")
    assert run.returncode == 0 and run.stdout.count("activations") == 1, run.stderr
    refused = start(TORCHRUN, "-m", "vgid", "audit", "--model", random_folder)
    assert refused.returncode != 0 and refused.stderr.count("vgid audit runs in one process") == 1


def test_launch_configurations_are_what_accelerate_reads() -> None:
    names = sorted(path.name for path in LAUNCH.iterdir())
    assert names == ["ddp.yaml", "deepspeed-zero2.yaml", "fsdp2.yaml"]
    kinds = [str(load_config_from_file(str(LAUNCH / name)).distributed_type) for name in names]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["MULTI_GPU", "DEEPSPEED", "FSDP"]
    assert yaml.safe_load((LAUNCH / "fsdp2.yaml").read_text())["fsdp_config"]["fsdp_version"] == 2


def test_zero_3_is_refused_with_a_pointer_to_fsdp2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Accelerate names the stage, or DeepSpeed's own file does."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    for name, value in (("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3"), ("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))):
        with monkeypatch.context() as patch, pytest.raises(ConfigError, match=r"(?s)ZeRO-3 is not supported.*training\.shard=true"):
            patch.setenv(name, value)
            processes.start()


def test_one_process_alone_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.start()
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    processes.sum_gradients(layer.parameters())
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert (processes.count(), processes.rank(), processes.exchange("a"), processes.from_first("b")) == (1, 0, ["a"], "b")
    assert processes.full_tensor(layer.weight) is layer.weight and not processes.is_sharded(layer)
