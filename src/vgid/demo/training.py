"""Memorising and retraining: two lessons of the same kind, learned side by side, since neither can use many cores alone."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from vgid.artifacts import cache_folder
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.demo.targets import Target
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.progress import Progress, quiet_libraries
from vgid.training.fit import fit


@dataclass(frozen=True)
class Lesson:
    """Fine-tune a target's base on rows and write the checkpoint to `out`."""

    target: Target
    out: Path
    rows: Sequence[Example]
    seed: int

    def learn(self, progress: Progress | None = None) -> None:
        """Train, or copy the checkpoint from the cache where the target keeps one."""
        target, config = self.target, self.target.memorising_config(self.seed)
        cached = cache_folder() / f"{target.name}-{self._fingerprint(config)}"
        if not (target.cached and cached.is_dir()):
            fitted = fit(load_model(target.base()), [], self.rows, config, progress=progress)
            save_checkpoint(fitted.loaded.model, fitted.loaded.processor, cached if target.cached else self.out)
        if target.cached:
            shutil.copytree(cached, self.out)

    def _fingerprint(self, config: RunConfig) -> str:
        """What the checkpoint depends on; pictures of fictional people follow from the rows' ids."""
        parts = [version("vgid"), config.model_dump_json(), *(f"{row.id} {row.question} {row.answer}" for row in self.rows)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def side_by_side(lessons: Sequence[Lesson], ticks: Sequence[Progress]) -> None:
    """Learn lessons in processes of their own, sharing the cores; what one of them raises is raised here."""
    context = get_context("spawn")
    with context.Manager() as manager:
        told = manager.Queue()
        with ProcessPoolExecutor(len(lessons), context, _share_cores, (len(lessons),)) as pool:
            jobs = [pool.submit(_learn, lesson, number, told) for number, lesson in enumerate(lessons)]
            while not all(job.done() for job in jobs) or not told.empty():
                try:
                    number, done, total = told.get(timeout=0.2)
                    ticks[number](done, total)
                except queue.Empty:
                    continue
            for job in jobs:
                job.result()


def _share_cores(processes: int) -> None:
    quiet_libraries()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _learn(lesson: Lesson, number: int, told: Any) -> None:
    lesson.learn(lambda done, total: told.put((number, done, total)))
