"""Killed again and again, wherever it hurts, a run still ends bit for bit as one that was left alone."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SETTINGS = [
    "method.adversary.rate=3e-3",
    "training.steps=14",
    "training.checkpoint_every=1",
    "method.answers=[recorded,teacher]",
    "adapter.dropout=0.2",
    "validation.patience=99",
]
KILLS = [
    ("loss", 1),  # before there is any checkpoint
    ("half written", 1),
    ("before the rename", 2),
    ("after the rename", 2),
    ("loss", 3),
    ("half written", 3),
    ("optimizer step", 2),
    ("look", 2),
    ("before the rename", 1),
    ("half written", 2),
    ("final checkpoint", 1),
    ("export", 1),
    ("export", 2),
    ("removal", 1),
]
"""What a run is about to do, for which time since it started, when it is killed; each kill meets the run that the last one left."""


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, time: int, first: Callable[..., None] = die) -> None:
    """Do something else first, and die, when a function is called for the given time."""
    real, calls = getattr(owner, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == time:
            first(*arguments, **options)
        return real(*arguments, **options)

    setattr(owner, name, counted)


def half(tensors: dict[str, torch.Tensor], path: str, *_: Any) -> None:
    Path(path).write_bytes(b"\x08" * 10_000)
    die()


def set_trap(event: str, time: int) -> None:
    import vgid.training.checkpoint_callback as saver
    import vgid.training.checkpointing as checkpointing
    import vgid.unlearning
    from vgid.methods.vgid.method import VGID
    from vgid.training.validation import EarlyStop

    match event:
        case "loss":
            before(VGID, "passes", time)
        case "optimizer step":
            before(torch.optim.AdamW, "step", time)
        case "look":
            before(EarlyStop, "_evaluate", time)
        case "half written":
            before(checkpointing, "save_file", time, half)
        case "before the rename":
            before(checkpointing.os, "replace", time)
        case "after the rename":
            before(checkpointing, "_sync", 2 * time)  # the file is synced, renamed, and the folder is synced
        case "final checkpoint":
            before(saver.CheckpointCallback, "on_train_end", time)
        case "export":
            before(vgid.unlearning, ("save_adapter", "save_checkpoint")[time - 1], 1)
        case "removal":
            before(vgid.unlearning, "forget_checkpoint", time)


def run(model: Path, out: Path, trap: tuple[str, int] | None) -> None:
    """One life of the run, in a process of its own."""
    from tests.training import worker
    from vgid.config import load_config
    from vgid.models.loading import load_model

    torch.set_num_threads(1)
    if trap:
        set_trap(*trap)
    worker.train_in_folder(
        load_model(model), worker.FORGET, worker.RETAIN, load_config(None, [*worker.SETTINGS, *SETTINGS]), out=out, resume=True
    )


@pytest.fixture(scope="module")
def live() -> Callable[..., int]:
    """Runs until it ends or dies; gives its exit code. Imports are done once, in the process all others are forked from."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.training.worker"])

    def live(*arguments: Any, patience: float | None = None) -> int:
        process = context.Process(target=run, args=arguments)
        process.start()
        process.join(patience)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    return live


@pytest.fixture(scope="module")
def straight(live: Callable[..., int], random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What a run that is left alone ends with."""
    out = tmp_path_factory.mktemp("straight")
    assert live(random_folder, out, None) == 0
    return load_file(out / "merged" / "model.safetensors")


def assert_same(out: Path, straight: dict[str, torch.Tensor]) -> None:
    found = load_file(out / "merged" / "model.safetensors")
    assert found.keys() == straight.keys() and all(torch.equal(found[name], straight[name]) for name in found)
    assert sorted(path.name for path in out.iterdir()) == [".vgid-run", "adapter", "merged"]  # no checkpoint and no litter


def test_killed_at_every_turn(live: Callable[..., int], random_folder: Path, straight: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for trap in KILLS:
        assert live(random_folder, tmp_path, trap) == -signal.SIGKILL, trap
    assert live(random_folder, tmp_path, None) == 0
    assert_same(tmp_path, straight)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(
    live: Callable[..., int], random_folder: Path, straight: dict[str, torch.Tensor], tmp_path: Path, seed: int
) -> None:
    """Later and later, so that the run comes to its end at last."""
    random, kills = Random(seed), 0
    while (code := live(random_folder, tmp_path, None, patience=random.uniform(0.3, 2.0) * (1 + kills / 4))) == -signal.SIGKILL:
        kills += 1
    assert code == 0 and kills
    assert_same(tmp_path, straight)
