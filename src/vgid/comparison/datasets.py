"""The dataset of a seed: its people, the model that memorised all of them, and the one that never saw those to forget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import whole_folder, write_json_atomic
from vgid.comparison.identity import Identity, identity, surroundings
from vgid.comparison.plan import Plan
from vgid.config import RunConfig
from vgid.demo.data import DemoData, read_data, write_data
from vgid.demo.training import TrainingJob, train_in_parallel, training_jobs
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.run_folder import discard
from vgid.synthetic.people import World

FOLDER = "worlds"
"""Folder of the datasets, in the output folder of a comparison."""
MODELS = ("base", "retrained")
"""Folders of the two models, in the folder of a seed."""


@dataclass(frozen=True)
class SeedDataset:
    """A seed's rows, and where its models are.

    Attributes:
        seed: random seed of people, rows and training.
        folder: folder with the models `base` and `retrained`.
        data: rows and splits.
        config: configuration of the training of both models.
        identities: by model, what it depends on.
        seconds: by model, how long its training took; the two are trained in parallel.
    """

    seed: int
    folder: Path
    data: DemoData
    config: RunConfig
    identities: Mapping[str, Identity]
    seconds: Mapping[str, float]


def prepare_seed(plan: Plan, seed: int, out: Path, stages: Stages) -> SeedDataset:
    """Draw a seed's people and train its two models, or reuse what an earlier comparison left if it depends on the same things.

    Args:
        plan: the comparison.
        seed: the random seed.
        out: output folder of the comparison.
        stages: shows and times what is done.

    Returns:
        The dataset, as it is in the output folder.
    """
    folder = out / FOLDER / f"seed-{seed}"
    data = _draw(plan, seed, folder, stages)
    config = plan.target.memorising_config(seed)
    origin = load_model(plan.target.base()).model
    jobs = training_jobs(plan.target, data, folder, seed)
    identities = {name: identity(config, [], job.rows, origin, {}) for name, job in zip(MODELS, jobs, strict=True)}
    missing = {name: job for name, job in zip(MODELS, jobs, strict=True) if not _is_kept(folder, name, identities[name])}
    if missing:
        _learn(missing, identities, seed, stages)
    seconds = {name: _read_note(folder, name)["seconds"] for name in MODELS}
    return SeedDataset(seed, folder, data, config, identities, seconds)


def _draw(plan: Plan, seed: int, folder: Path, stages: Stages) -> DemoData:
    world = World(seed, plan.people, plan.forget)
    drawn = {"seed": seed, "people": plan.people, "forget": plan.forget, "examined": plan.target.questions_per_split, **surroundings()}
    if not (_read_note(folder, "data").get("identity") == drawn and (folder / "data").is_dir()):
        with stages(f"Drawing the people of seed {seed}", "data"):
            _remove(folder, "data")
            with whole_folder(folder / "data") as unfinished:
                write_data(world, unfinished, plan.target.questions_per_split)
            write_json_atomic(folder / "data.json", {"identity": drawn})
    return read_data(folder / "data")


def _learn(jobs: Mapping[str, TrainingJob], identities: Mapping[str, Identity], seed: int, stages: Stages) -> None:
    started = time.monotonic()
    for job in jobs.values():
        _remove(job.out.parent, job.out.name)
    with stages(f"Memorising and retraining, seed {seed}", "memorise") as tick:
        train_in_parallel(list(jobs.values()), [tick, *[lambda done, total: None] * (len(jobs) - 1)])
    for name, job in jobs.items():
        taken = round(time.monotonic() - started, 2)
        write_json_atomic(job.out.parent / f"{name}.json", {"identity": identities[name], "seconds": taken})


def _is_kept(folder: Path, name: str, wanted: Identity) -> bool:
    return (folder / name).is_dir() and _read_note(folder, name).get("identity") == wanted


def _read_note(folder: Path, name: str) -> dict[str, Any]:
    """Return what is noted about a model or the data; the note is written last, so without one the rest may be incomplete."""
    path = folder / f"{name}.json"
    return read_json(path) if path.is_file() else {}


def _remove(folder: Path, name: str) -> None:
    discard(folder / f"{name}.json")
    discard(folder / name)
