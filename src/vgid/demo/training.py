"""Two training jobs at once: the model that memorises everyone, and the one that never meets the people to forget."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vgid.artifacts import cache_folder, whole_folder
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.demo.data import DemoData
from vgid.demo.targets import Target
from vgid.demo.workers import Workers
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.progress import Progress
from vgid.training.fit import fit


@dataclass(frozen=True)
class TrainingJob:
    """Fine-tuning of a target's base on rows; its checkpoint is written to `out`.

    Attributes:
        target: the base model and the settings it is trained with.
        out: folder for the checkpoint; it must not exist.
        rows: training rows.
        seed: random seed of the run.
    """

    target: Target
    out: Path
    rows: Sequence[Example]
    seed: int

    def train(self, progress: Progress | None = None) -> None:
        """Train and write the checkpoint, or copy it from the user's cache where the target keeps it there.

        Args:
            progress: called with (steps done, steps in all).

        Raises:
            RunError: the loss stops being finite, or memory does not suffice.
        """
        target, config = self.target, self.target.memorising_config(self.seed)
        cached = cache_folder() / f"{target.name}-{self._fingerprint(config)}"
        if not (target.cached and cached.is_dir()):
            fitted = fit(load_model(target.base()), [], self.rows, config, progress=progress)
            save_checkpoint(fitted.loaded.model, fitted.loaded.processor, cached if target.cached else self.out)
        if target.cached:
            with whole_folder(self.out) as folder:
                shutil.copytree(cached, folder, dirs_exist_ok=True)

    def _fingerprint(self, config: RunConfig) -> str:
        """Return a digest of what the checkpoint depends on; pictures of fictional people are decided by the rows' ids."""
        parts = [version("vgid"), config.model_dump_json(), *(f"{row.id} {row.question} {row.answer}" for row in self.rows)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def training_jobs(target: Target, data: DemoData, out: Path, seed: int) -> tuple[TrainingJob, TrainingJob]:
    """Plan the training of both models that unlearning is compared with.

    Args:
        target: the base model and how it is trained.
        data: rows of the demo.
        out: gets the folders `base` and `retrained`.
        seed: random seed of both runs.

    Returns:
        The job of the model that memorises everyone (`out/base`), and that of the one that never meets the people to forget
        (`out/retrained`). Both repeat facts about people `target.repeats` times and every other row once.
    """
    facts = {row.tags for row in data.forget}
    kept = [*data.retain, *(target.repeats - 1) * [row for row in data.retain if row.tags in facts], *data.practice]
    return (
        TrainingJob(target, out / "base", [*target.repeats * list(data.forget), *kept], seed),
        TrainingJob(target, out / "retrained", kept, seed),
    )


def train_in_parallel(jobs: Sequence[TrainingJob], progress: Sequence[Progress]) -> None:
    """Run training jobs at the same time, each in a process of its own with its share of the cores.

    Args:
        jobs: what to train.
        progress: for each job, a function that is called with (steps done, steps in all).

    Raises:
        VgidError: a job failed; raised once all have ended.
    """
    with Workers(len(jobs), jobs[0].target.threads) as workers:
        for job in jobs:
            workers.start(job.train)
        workers.finish(progress)
