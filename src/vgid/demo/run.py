"""The demo's steps, on generated files, by the same functions the commands call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vgid.config import RunConfig, load_config, validate_config
from vgid.data.example import Example
from vgid.data.people import Camera, World
from vgid.data.sources import load_examples, write_examples
from vgid.data.splits import SPLITS, TRAINING_STRANGERS, evaluation_splits, perception_rows, stranger_rows, training_rows
from vgid.demo.practice import practice_rows
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.models.export import save_checkpoint
from vgid.models.loading import LoadedModel, load_model
from vgid.models.tiny import IMAGE_SIZE, tiny_path
from vgid.pipeline import Fitted, fit, unlearn
from vgid.progress import Stages

RETAIN_PERCEPTION = 24
"""Perception questions about each retained person in the retain set."""
ABLATIONS: dict[str, tuple[str, ...]] = {
    "noise only": ("method.instruction=null",),
    "instruction only": ("method.noise.kind=none",),
    "both": (),
}
Splits = dict[str, list[Example]]
Results = dict[str, SplitResult]


def write_data(world: World, folder: Path) -> None:
    """Write forget, retain and practice rows, and the evaluation splits, as files anyone can read."""
    camera = Camera(IMAGE_SIZE)
    kept = chain(
        training_rows(camera, world.retain, world.seed),
        perception_rows(camera, world.retain, RETAIN_PERCEPTION, "training", world.seed),
        stranger_rows(camera, list(world.strangers(TRAINING_STRANGERS, "training")), world.seed),
    )
    write_examples(folder / "forget.jsonl", list(training_rows(camera, world.forget, world.seed)))
    write_examples(folder / "retain.jsonl", list(kept))
    write_examples(folder / "practice.jsonl", list(practice_rows(camera, world)))
    for name, examples in evaluation_splits(camera, world).items():
        write_examples(folder / "splits" / f"{name}.jsonl", examples)


def memorising(seed: int) -> RunConfig:
    """How the demo memorises, and retrains: full-parameter fine-tuning of projector and language model."""
    training = {"steps": 300, "retain_batch": 48, "learning_rate": 2e-3, "warmup_steps": 20, "optimizer": "muon"}
    return validate_config(
        {"method": {"name": "finetune"}, "adapter": None, "training": training, "validation": {"every": 0}, "seed": seed}
    )


@dataclass(frozen=True)
class Demo:
    """What the demo found out: for each model and split the answers; models by what they went through."""

    world: World
    splits: Splits
    evaluated: Mapping[str, Results]
    ablation: Mapping[str, Results]
    unlearned: Fitted
    seconds: Mapping[str, float]


def run_demo(out: Path, *, people: int, forget: int, seed: int, ablation: bool, stages: Stages) -> Demo:
    """Memorise, unlearn, retrain, evaluate; data and models are written below `out`."""
    world = World(seed, people, forget)
    with stages("Drawing people", "data"):
        write_data(world, out / "data")
    forget_rows, retain_rows, practice = (load_examples(out / "data" / f"{name}.jsonl") for name in ("forget", "retain", "practice"))
    splits = {name: load_examples(out / "data" / "splits" / f"{name}.jsonl") for name in SPLITS}
    base = _fine_tune(out / "base", [*forget_rows, *retain_rows, *practice], seed, stages, "Memorising everyone", "memorise")
    retrained = _fine_tune(out / "retrained", [*retain_rows, *practice], seed, stages, "Retraining without them", "retrain")
    with stages("Unlearning by VGID", "unlearn") as tick:
        config = load_config(overrides=[f"seed={seed}"])
        unlearned = unlearn(load_model(base), forget_rows, retain_rows, config, out=out, progress=tick)
    models = {"base": load_model(base), "unlearned": load_model(out / "merged"), "retrained": load_model(retrained)}
    evaluated = {name: _examine(model, splits, stages, name) for name, model in models.items()}
    ablated = _ablate(base, forget_rows, retain_rows, splits, seed, stages) if ablation else {}
    return Demo(world, splits, evaluated, ablated, unlearned, stages.seconds)


def _fine_tune(out: Path, rows: Sequence[Example], seed: int, stages: Stages, title: str, key: str) -> Path:
    with stages(title, key) as tick:
        fitted = fit(load_model(tiny_path()), [], rows, memorising(seed), progress=tick)
        save_checkpoint(fitted.loaded.model, fitted.loaded.processor, out)
    return out


def _examine(loaded: LoadedModel, splits: Splits, stages: Stages, name: str) -> Results:
    with stages(f"Examining the {name} model", "evaluate") as tick:
        return evaluate(loaded, splits, on_progress=tick)


def _ablate(base: Path, forget: list[Example], retain: list[Example], splits: Splits, seed: int, stages: Stages) -> dict[str, Results]:
    results = {}
    for name, overrides in ABLATIONS.items():
        with stages(f"Unlearning with {name}", "ablation") as tick:
            fitted = fit(load_model(base), forget, retain, load_config(overrides=[*overrides, f"seed={seed}"]), progress=tick)
        results[name] = _examine(fitted.loaded, splits, stages, name)
    return results
