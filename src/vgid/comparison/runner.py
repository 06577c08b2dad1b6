"""Runs what a plan says.

What is finished is kept; a run that was cut short begins anew, so that its time is a whole run's. Several processes may work in one
folder: each takes up what no other is at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from vgid.comparison.datasets import Ready, make_ready
from vgid.comparison.identity import identity
from vgid.comparison.peak_memory import PeakMemory
from vgid.comparison.plan import BEFORE, REFERENCE, TIMED, Contender, Plan, Tuned
from vgid.comparison.stored_run import Run, judged, read_run
from vgid.comparison.time_budget import steps_in
from vgid.comparison.tuning import tune
from vgid.config import RunConfig, resolve
from vgid.data.example import Example
from vgid.demo.command import SHOWN, spread
from vgid.errors import RunError, StoppedError
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.training.fit import fit

NOTHING, LOOK = "nothing to train", "recall "


@dataclass(frozen=True)
class Compared:
    """All runs of a comparison, its references among them, and what tuning found."""

    plan: Plan
    runs: Sequence[Run]
    tuned: Mapping[str, Tuned]
    examples: Mapping[str, Sequence[Example]]
    """By split, the examples of the first seed that are shown."""


def run_plan(plan: Plan, out: Path, stages: Stages) -> Compared:
    """Tune if told to, then run every contender on every seed, and at last wait for what other processes are at."""
    tuned: dict[str, Tuned] = {}
    seeds: list[SeedRuns] = []
    examples: dict[str, list[Example]] = {}
    for seed in plan.seeds:
        with FileLock(out / "worlds" / f"seed-{seed}.lock"):
            ready = make_ready(plan, seed, out, stages)
        if seed == plan.seeds[0]:
            examples = {split: spread(ready.data.splits[split], min(count, len(ready.data.splits[split]))) for split, count in SHOWN}
            tuned = tune(plan, ready, out, stages) if plan.trials else plan.found
        seeds.append(SeedRuns(plan, ready, out, stages, tuned, examples if seed == plan.seeds[0] else {}))
        seeds[-1].begin()
    return Compared(plan, [run for each in seeds for run in each.runs()], tuned, examples)


class _Job(NamedTuple):
    """A run to come."""

    name: str
    depends: Mapping[str, Any]
    run: Callable[[], Run]


class SeedRuns:
    """The runs of one seed."""

    def __init__(
        self,
        plan: Plan,
        ready: Ready,
        out: Path,
        stages: Stages,
        tuned: Mapping[str, Tuned],
        shown: Mapping[str, Sequence[Example]],
    ) -> None:
        self.plan, self.ready, self.out, self.stages, self.tuned = plan, ready, out, stages, tuned
        self.shown = {split: [example.id for example in examples] for split, examples in shown.items()}
        self.base = load_model(ready.folder / "base").model
        self.done: dict[str, Run] = {}
        self._left: list[_Job] | None = None

    def begin(self) -> None:
        """Run what is not kept yet and no other process is at."""
        self._left = [job for job in self._jobs() if not self._take(job, wait=False)]

    def runs(self) -> list[Run]:
        """All of them, references first; what another process is at is waited for, and run if that one is killed."""
        for job in self._jobs() if self._left is None else self._left:
            self._take(job)
        return [self.done[name] for name in (BEFORE, REFERENCE, *(each.name for each in self.plan.contenders))]

    def _jobs(self) -> Iterable[_Job]:
        yield self._reference(BEFORE, "base")
        yield self._reference(REFERENCE, "retrained")
        clock: float | None = None
        for contender in self.plan.contenders:
            settings = self.tuned[contender.name].settings if contender.name in self.tuned else {}
            job = self._contender(contender, self.plan.config(contender, self.ready.seed, settings), clock)
            if contender.name == TIMED and self.plan.budget == "equal-time":
                self._take(job)
                clock = self._clock()
            yield job

    def _take(self, job: _Job, wait: bool = True) -> bool:
        """Run it, or take what is kept of it; without `wait`, not if another process is at it, and so it may not be done."""
        if job.name in self.done:
            return True
        path = self.out / "runs" / f"seed-{self.ready.seed}" / f"{job.name.replace(':', '.')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock"), blocking=wait):
                kept = read_run(path, job.depends)
                if kept is None:
                    kept = job.run()
                    kept.write(path)
        except Timeout:
            return False
        self.done[job.name] = kept
        return True

    def _clock(self) -> float:
        """VGID's seconds.

        Raises:
            RunError: it failed, so that nobody knows how long the others may take.
        """
        run = self.done[TIMED]
        if run.failed:
            raise RunError("VGID's run failed, so there is no time to give to the others", got=run.failed)
        return run.seconds

    def _reference(self, name: str, folder: str) -> _Job:
        depends = {**self._identity(resolve(None, [f"seed={self.ready.seed}"], method=name)), "model": self.ready.identities[folder]}
        steps, seconds = (0, 0.0) if name == BEFORE else (self.ready.config.training.steps or 0, self.ready.seconds[folder])

        def run() -> Run:
            answers = self._examine(load_model(self.ready.folder / folder), name)
            return Run(name, self.ready.seed, depends, None, steps, seconds, 0, "all steps taken" if steps else NOTHING, **answers)

        return _Job(name, depends, run)

    def _contender(self, contender: Contender, config: RunConfig, clock: float | None) -> _Job:
        clock = clock if contender.trains else None
        depends = {**self._identity(config), "seconds": clock}
        return _Job(contender.name, depends, lambda: self._unlearn(contender, config, clock, depends))

    def _unlearn(self, contender: Contender, config: RunConfig, clock: float | None, depends: Mapping[str, Any]) -> Run:
        data, base, seed = self.ready.data, self.ready.folder / "base", self.ready.seed
        steps = config.training.steps or 0
        try:
            if clock is not None:
                with self.stages(f"Timing {contender.name}, seed {seed}", "timing"):
                    steps = steps_in(clock, base, data.forget, data.retain, config)
                config = config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})
            loaded = load_model(base)
            with self.stages(f"Unlearning by {contender.name}, seed {seed}", contender.name) as tick, PeakMemory() as peak:
                fitted = fit(loaded, data.forget, data.retain, config, progress=tick)
        except StoppedError:
            raise
        except RunError as error:
            return Run(contender.name, seed, depends, config.model_dump(mode="json"), 0, 0.0, 0, "failed", failed=error.problem)
        steps = max((curve[-1][0] for curve in fitted.curves.values() if curve), default=0)
        looks = {name.removeprefix(LOOK): curve for name, curve in fitted.curves.items() if name.startswith(LOOK)}
        answers = self._examine(fitted.loaded, contender.name)
        settings = config.model_dump(mode="json")
        return Run(contender.name, seed, depends, settings, steps, round(fitted.seconds, 2), peak.bytes, fitted.stopped, looks, **answers)

    def _identity(self, config: RunConfig) -> dict[str, Any]:
        data = self.ready.data
        return {**identity(config, data.forget, data.retain, self.base, data.splits), "shown": self.shown}

    def _examine(self, loaded: LoadedModel, name: str) -> dict[str, Any]:
        with self.stages(f"Examining {name}, seed {self.ready.seed}", "evaluate") as tick:
            return judged(evaluate(loaded, self.ready.data.splits, on_progress=tick), self.shown)
