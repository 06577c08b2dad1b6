"""Runs a plan.

Finished runs are stored. A run that was stopped starts from the beginning, so that its time is that of a whole run. Several processes may
work in one folder: each takes runs that no other process works on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from vgid.comparison.datasets import FOLDER, SeedDataset, prepare_seed
from vgid.comparison.identity import identity
from vgid.comparison.peak_memory import PeakMemory
from vgid.comparison.plan import BASE, REFERENCE, TIME_BUDGET_METHOD, Entry, Plan, Tuned
from vgid.comparison.stored_run import Run, evaluation_fields, read_run
from vgid.comparison.time_budget import steps_within
from vgid.comparison.tuning import tune
from vgid.config import RunConfig, resolve
from vgid.curves import RECALL, measured, thinned
from vgid.data.example import Example
from vgid.demo.report import EXAMPLES_SHOWN, evenly_spaced
from vgid.errors import RunError, StoppedError
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.run_folder import note
from vgid.training.fit import fit

CURVE_POINTS = 100
"""Points of a stored curve, at most."""


@dataclass(frozen=True)
class FinishedComparison:
    """All runs of a comparison.

    Attributes:
        plan: what was run.
        runs: the runs of all seeds, those of the base and the reference among them.
        tuned: what the search for settings found, by entry.
        examples: by split, the examples of the first seed that the page shows.
    """

    plan: Plan
    runs: Sequence[Run]
    tuned: Mapping[str, Tuned]
    examples: Mapping[str, Sequence[Example]]


def run_plan(plan: Plan, out: Path, stages: Stages) -> FinishedComparison:
    """Search settings if the plan says so, run every entry on every seed, and wait for what other processes work on.

    Args:
        plan: the comparison.
        out: output folder, which several processes may share.
        stages: shows and times what is done.

    Returns:
        All runs.

    Raises:
        RunError: the run that sets the time budget failed.
        StoppedError: a signal asked the run to stop; the same call goes on.
    """
    tuned: dict[str, Tuned] = {}
    seeds: list[SeedRuns] = []
    examples: dict[str, list[Example]] = {}
    for seed in plan.seeds:
        note(out / FOLDER / f"seed-{seed}.lock")
        with FileLock(out / FOLDER / f"seed-{seed}.lock"):
            dataset = prepare_seed(plan, seed, out, stages)
        if seed == plan.seeds[0]:
            examples = {
                split: evenly_spaced(dataset.data.splits[split], min(count, len(dataset.data.splits[split])))
                for split, count in EXAMPLES_SHOWN
            }
            tuned = tune(plan, dataset, out, stages) if plan.trials else plan.found
        seeds.append(SeedRuns(plan, dataset, out, stages, tuned, examples if seed == plan.seeds[0] else {}))
        seeds[-1].begin()
    return FinishedComparison(plan, [run for each in seeds for run in each.runs()], tuned, examples)


class _PendingRun(NamedTuple):
    """A run that is not stored yet: its name, its identity, and the function that runs it."""

    name: str
    identity: Mapping[str, Any]
    run: Callable[[], Run]


class SeedRuns:
    """The runs of one seed.

    Args:
        plan: the comparison.
        dataset: the seed's rows and models.
        out: output folder of the comparison.
        stages: shows and times what is done.
        tuned: what the search for settings found, by entry.
        shown: by split, the examples with answers that the page shows.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: SeedDataset,
        out: Path,
        stages: Stages,
        tuned: Mapping[str, Tuned],
        shown: Mapping[str, Sequence[Example]],
    ) -> None:
        self.plan, self.dataset, self.out, self.stages, self.tuned = plan, dataset, out, stages, tuned
        self.shown = {split: [example.id for example in examples] for split, examples in shown.items()}
        self.base = load_model(dataset.folder / "base").model
        self.done: dict[str, Run] = {}
        self._left: list[_PendingRun] | None = None

    def begin(self) -> None:
        """Run what is not stored yet and no other process works on."""
        self._left = [pending for pending in self._pending() if not self._finish(pending, wait=False)]

    def runs(self) -> list[Run]:
        """Return all runs, the base and the reference first; wait for other processes, and take over from those that are killed."""
        for pending in self._pending() if self._left is None else self._left:
            self._finish(pending)
        return [self.done[name] for name in (BASE, REFERENCE, *(each.name for each in self.plan.entries))]

    def _pending(self) -> Iterable[_PendingRun]:
        yield self._reference_run(BASE, "base")
        yield self._reference_run(REFERENCE, "retrained")
        time_budget: float | None = None
        for entry in self.plan.entries:
            settings = self.tuned[entry.name].settings if entry.name in self.tuned else {}
            pending = self._entry_run(entry, self.plan.config(entry, self.dataset.seed, settings), time_budget)
            if entry.name == TIME_BUDGET_METHOD and self.plan.budget == "equal-time":
                # The entries after it need its time, so it has to be finished before they can be described.
                self._finish(pending)
                time_budget = self._time_budget()
            yield pending

    def _finish(self, pending: _PendingRun, wait: bool = True) -> bool:
        """Read a run that is stored, or run it; without `wait`, return False at once if another process works on it."""
        if pending.name in self.done:
            return True
        path = self.out / "runs" / f"seed-{self.dataset.seed}" / f"{pending.name.replace(':', '.')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        note(path.with_suffix(".lock"))
        try:
            with FileLock(path.with_suffix(".lock"), blocking=wait):
                run = read_run(path, pending.identity)
                if run is None:
                    run = pending.run()
                    run.write(path)
        except Timeout:
            return False
        self.done[pending.name] = run
        return True

    def _time_budget(self) -> float:
        run = self.done[TIME_BUDGET_METHOD]
        if run.failed:
            raise RunError(f"the run of {TIME_BUDGET_METHOD} failed, so there is no time budget for the others", got=run.failed)
        return run.seconds

    def _reference_run(self, name: str, folder: str) -> _PendingRun:
        config = resolve(None, [f"seed={self.dataset.seed}"], method=name)
        depends = {**self._identity(config), "model": self.dataset.identities[folder]}
        steps, seconds = (0, 0.0) if name == BASE else (self.dataset.config.training.steps or 0, self.dataset.seconds[folder])

        def run() -> Run:
            fields = self._evaluate(load_model(self.dataset.folder / folder), name)
            ended = "all steps taken" if steps else "nothing to train"
            return Run(name, self.dataset.seed, depends, None, steps, seconds, 0, ended, **fields)

        return _PendingRun(name, depends, run)

    def _entry_run(self, entry: Entry, config: RunConfig, time_budget: float | None) -> _PendingRun:
        time_budget = time_budget if entry.trains else None
        depends = {**self._identity(config), "seconds": time_budget}
        return _PendingRun(entry.name, depends, lambda: self._unlearn(entry, config, time_budget, depends))

    def _unlearn(self, entry: Entry, config: RunConfig, time_budget: float | None, depends: Mapping[str, Any]) -> Run:
        data, base, seed = self.dataset.data, self.dataset.folder / "base", self.dataset.seed
        try:
            if time_budget is not None:
                with self.stages(f"Timing {entry.name}, seed {seed}", "timing"):
                    steps = steps_within(time_budget, base, data.forget, data.retain, config)
                config = config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})
            loaded = load_model(base)
            with self.stages(f"Unlearning by {entry.name}, seed {seed}", entry.name) as tick, PeakMemory() as peak:
                fitted = fit(loaded, data.forget, data.retain, config, progress=tick)
        except StoppedError:
            raise
        except RunError as error:
            return Run(entry.name, seed, depends, config.model_dump(mode="json"), 0, 0.0, 0, "failed", failed=error.problem)
        steps = max((curve[-1][0] for curve in fitted.curves.values() if curve), default=0)
        recalls = measured(fitted.curves, RECALL)
        curves = thinned({name: curve for name, curve in fitted.curves.items() if not name.startswith(RECALL)}, CURVE_POINTS)
        fields = self._evaluate(fitted.loaded, entry.name)
        settings, seconds = config.model_dump(mode="json"), round(fitted.seconds, 2)
        return Run(entry.name, seed, depends, settings, steps, seconds, peak.bytes, fitted.stopped, recalls, curves, **fields)

    def _identity(self, config: RunConfig) -> dict[str, Any]:
        data = self.dataset.data
        return {**identity(config, data.forget, data.retain, self.base, data.splits), "shown": self.shown}

    def _evaluate(self, loaded: LoadedModel, name: str) -> dict[str, Any]:
        with self.stages(f"Examining {name}, seed {self.dataset.seed}", "evaluate") as tick:
            return evaluation_fields(evaluate(loaded, self.dataset.data.splits, on_progress=tick), self.shown)
