"""`vgid evaluate --utility` as a function: run suites on one model after the other, and compare with the model before unlearning."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.data.example import Example
from vgid.errors import ConfigError
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.results import ModelPaths, versions
from vgid.run_folder import check_output, output_folder
from vgid.utility import harness, perception
from vgid.utility.figures import SuiteFigure, accuracy_figure, relative_figure, relative_figures

SCHEMA = "vgid.utility/1"
BUILT_IN = ("perception", "perception-options")
"""Suites that need no other package."""


@dataclass(frozen=True)
class Suite:
    """A suite to run.

    Attributes:
        name: the suite as the user writes it, which results show.
        harness: `lm-eval` or `lmms-eval`; None for a built-in suite.
        tasks: tasks of the harness.
        family: lmms-eval's name for the family of the model; empty for the others.
    """

    name: str
    harness: str | None = None
    tasks: tuple[str, ...] = ()
    family: str = ""


def read_suite(text: str) -> Suite:
    """Parse `perception`, `perception-options`, `lm-eval:TASK,TASK` or `lmms-eval:FAMILY:TASK,TASK`.

    Raises:
        ConfigError: the text is none of these.
    """
    name, _, rest = text.partition(":")
    family, _, tasks = rest.partition(":") if name == "lmms-eval" else ("", "", rest)
    wanted = tuple(task.strip() for task in tasks.split(",") if task.strip())
    if text in BUILT_IN:
        return Suite(text)
    if (name == "lm-eval" and wanted) or (name == "lmms-eval" and wanted and family):
        return Suite(text, name, wanted, family)
    raise ConfigError(
        "there is no such utility suite",
        expected=f"{', '.join(BUILT_IN)}, lm-eval:TASK,TASK or lmms-eval:FAMILY:TASK,TASK",
        got=repr(text),
    )


def run_utility(
    models: ModelPaths,
    suites: Sequence[str],
    out: Path | None,
    *,
    tasks_folder: Path | None = None,
    max_rows: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    overwrite: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Run suites of general utility on models; where `base` and `unlearned` are among them, compare the two.

    Args:
        models: `base`, `unlearned` and `retrained`, or some of them.
        suites: names of suites, as `read_suite` takes them.
        out: folder for `results.json` and `report.html`; None writes nothing.
        tasks_folder: folder with definitions of more tasks for lm-eval and lmms-eval.
        max_rows: questions of each task of lm-eval or lmms-eval, at most.
        seed: random seed of the built-in questions and of intervals.
        batch_size: questions that are asked at once; lmms-eval asks one.
        overwrite: replace what an earlier run left in `out`.
        stages: shows and times what is done.

    Returns:
        The results object as it is written to `results.json` (schema `vgid.utility/1`).

    Raises:
        ConfigError: a suite or task is unknown, a harness is not installed, or an adapter is given for lmms-eval, which takes checkpoints.
        OutputError: the folder holds results already, or cannot be written.
        RunError: a harness returned no figures.
    """
    wanted = [read_suite(text) for text in dict.fromkeys(suites)]
    managers = {}
    for suite in wanted:
        if suite.harness is None:
            continue
        managers[suite.name] = harness.check_tasks(suite.harness.replace("-", "_"), suite.tasks, tasks_folder)
        if suite.harness == "lmms-eval" and any(adapter for _, adapter in models.values()):
            raise ConfigError(
                "lmms-eval takes a checkpoint, not an adapter", got=f"an adapter for {suite.name}", fix="merge it: vgid export --merge"
            )
    if out is not None:
        check_output(out, overwrite, inputs=[tasks_folder, *models.values()])
    rows = {suite.name: perception.questions(seed, options=suite.name != "perception") for suite in wanted if suite.harness is None}
    made: dict[str, dict[str, list[SuiteFigure]]] = {suite.name: {} for suite in wanted}
    right: dict[str, dict[str, list[float]]] = {name: {} for name in rows}
    for name, (path, adapter) in models.items():
        loaded = load_model(path, adapter=adapter) if any(suite.harness != "lmms-eval" for suite in wanted) else None
        for suite in wanted:
            with stages(f"{suite.name}: the {name} model", "utility") as tick:
                if suite.name in rows:
                    assert loaded is not None
                    right[suite.name][name] = perception.answer_accuracy(loaded, rows[suite.name], batch_size, tick)
                    made[suite.name][name] = _figures_by_topic(rows[suite.name], right[suite.name][name], seed)
                elif loaded is not None and suite.harness == "lm-eval":
                    found = harness.run_lm_eval(loaded, suite.tasks, managers[suite.name], max_rows=max_rows, batch_size=batch_size)
                    made[suite.name][name] = found
                else:
                    found = harness.run_lmms_eval(path, suite.family, suite.tasks, managers[suite.name], max_rows=max_rows)
                    made[suite.name][name] = found
        del loaded
        gc.collect()  # one model in memory at a time
    results = {
        "schema": SCHEMA,
        "models": {name: path for name, (path, _) in models.items()},
        "seed": seed,
        "limit": max_rows,
        "versions": versions(),
        "seconds": dict(stages.seconds),
        "suites": {name: _as_json(each, rows.get(name), right.get(name, {}), seed) for name, each in made.items()},
    }
    if out is not None:
        _write(results, out)
    return results


def _figures_by_topic(rows: Sequence[Example], right: Sequence[float], seed: int) -> list[SuiteFigure]:
    return [
        accuracy_figure(topic, [right[i] for i in places], [str(rows[i].subject) for i in places], seed)
        for topic, places in _places_by_topic(rows).items()
    ]


def _places_by_topic(rows: Sequence[Example]) -> dict[str, list[int]]:
    """Return the places of the rows of each topic; `all` for all rows."""
    topics: dict[str, list[int]] = {"all": list(range(len(rows)))}
    for number, row in enumerate(rows):
        topics.setdefault(row.tags[0], []).append(number)
    return topics


def _as_json(
    made: Mapping[str, list[SuiteFigure]], rows: Sequence[Example] | None, right: Mapping[str, list[float]], seed: int
) -> dict[str, Any]:
    """Return the figures of a suite; those of a built-in suite are compared question by question."""
    compared = relative_figures(made)
    if rows is not None:
        compared = []
        if {"base", "unlearned"} <= set(right):
            for topic, places in _places_by_topic(rows).items():
                after, before = ([right[name][i] for i in places] for name in ("unlearned", "base"))
                each = relative_figure(topic, after, before, [str(rows[i].subject) for i in places], seed)
                compared += [each] if each is not None else []
    return {
        "figures": {name: [figure.as_json() for figure in each] for name, each in made.items()},
        "relative": [figure.as_json() for figure in compared],
    }


def _write(results: Mapping[str, Any], out: Path) -> None:
    from vgid.report.utility import render_utility

    with output_folder(out):
        write_text_atomic(out / "report.html", render_utility(results))
        write_json_atomic(out / "results.json", results)
