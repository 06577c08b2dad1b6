"""What `vgid evaluate --utility` does: run suites on one model after the other, and say what is left of the first one's figures."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import check_output, prepare_output, write_json_atomic, write_text_atomic
from vgid.errors import ConfigError
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.results import versions
from vgid.utility import harness, perception
from vgid.utility.figures import Figure, left_over, over_people, relative

SCHEMA = "vgid.utility/1"
BUILT_IN = ("perception", "perception-options")
Models = Mapping[str, tuple[str, Path | None]]
"""`base`, `unlearned`, `retrained` to (path, adapter)."""


@dataclass(frozen=True)
class Suite:
    """What is to be run: a built-in suite, or tasks of a harness; `kind` is lmms-eval's name for the model's family."""

    name: str
    harness: str | None = None
    tasks: tuple[str, ...] = ()
    kind: str = ""


def read_suite(text: str) -> Suite:
    """`perception`, `perception-options`, `lm-eval:TASK,TASK` or `lmms-eval:FAMILY:TASK,TASK`.

    Raises:
        ConfigError: it is none of these.
    """
    name, _, rest = text.partition(":")
    kind, _, tasks = rest.partition(":") if name == "lmms-eval" else ("", "", rest)
    wanted = tuple(task.strip() for task in tasks.split(",") if task.strip())
    if text in BUILT_IN:
        return Suite(text)
    if (name == "lm-eval" and wanted) or (name == "lmms-eval" and wanted and kind):
        return Suite(text, name, wanted, kind)
    raise ConfigError(
        "there is no such utility suite",
        expected=f"{', '.join(BUILT_IN)}, lm-eval:TASK,TASK or lmms-eval:FAMILY:TASK,TASK",
        got=repr(text),
    )


def run_utility(
    models: Models,
    suites: Sequence[str],
    out: Path | None,
    *,
    tasks_folder: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    overwrite: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Run every suite on every model; what is left of the base's figures is told where there is a base.

    Raises:
        ConfigError: no such suite or task, a harness that is not installed, or an adapter where only checkpoints can be asked.
        OutputError: the folder holds results already, or cannot be written.
    """
    wanted = [read_suite(text) for text in dict.fromkeys(suites)]
    managers = {suite.name: harness.check_tasks(suite.tasks, tasks_folder) for suite in wanted if suite.harness == "lm-eval"}
    for suite in (suite for suite in wanted if suite.harness == "lmms-eval"):
        harness.need("lmms_eval")
        if any(adapter for _, adapter in models.values()):
            raise ConfigError("lmms-eval loads checkpoints itself", got=f"an adapter for {suite.name}", fix="merge it: vgid export --merge")
    if out is not None:
        check_output(out, overwrite)
    rows = {suite.name: perception.questions(seed, options=suite.name != "perception") for suite in wanted if suite.harness is None}
    made: dict[str, dict[str, list[Figure]]] = {suite.name: {} for suite in wanted}
    answers: dict[str, dict[str, list[float]]] = {name: {} for name in rows}
    for name, (path, adapter) in models.items():
        loaded = load_model(path, adapter=adapter) if any(suite.harness != "lmms-eval" for suite in wanted) else None
        for suite in wanted:
            with stages(f"{suite.name}: the {name} model", "utility") as tick:
                if suite.name in rows:
                    assert loaded is not None
                    answers[suite.name][name] = perception.right(loaded, rows[suite.name], batch_size, tick)
                    made[suite.name][name] = _by_topic(rows[suite.name], answers[suite.name][name], seed)
                else:
                    made[suite.name][name] = _by_harness(suite, loaded, path, managers, limit, batch_size)
        del loaded
        gc.collect()  # one model at a time
    results = {
        "schema": SCHEMA,
        "models": {name: path for name, (path, _) in models.items()},
        "seed": seed,
        "limit": limit,
        "versions": versions(),
        "seconds": dict(stages.seconds),
        "suites": {name: _as_json(each, rows.get(name), answers.get(name, {}), seed) for name, each in made.items()},
    }
    if out is not None:
        _write(results, out)
    return results


def _by_harness(
    suite: Suite, loaded: LoadedModel | None, path: str, managers: Mapping[str, Any], limit: int | None, batch_size: int
) -> list[Figure]:
    if loaded is not None and suite.harness == "lm-eval":
        return harness.lm_eval(loaded, suite.tasks, managers[suite.name], limit=limit, batch_size=batch_size)
    return harness.lmms_eval(path, suite.kind, suite.tasks, limit=limit, batch_size=batch_size)


def _by_topic(rows: Sequence[Any], right: Sequence[float], seed: int) -> list[Figure]:
    made = []
    for topic, places in _topics(rows).items():
        made.append(over_people(topic, [right[i] for i in places], [rows[i].subject for i in places], seed))
    return made


def _topics(rows: Sequence[Any]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {"all": list(range(len(rows)))}
    for number, row in enumerate(rows):
        topics.setdefault(row.tags[0], []).append(number)
    return topics


def _as_json(made: Mapping[str, list[Figure]], rows: Any, answers: Mapping[str, list[float]], seed: int) -> dict[str, Any]:
    left = relative(made)
    if rows is not None:
        left = []
        if {"base", "unlearned"} <= set(answers):
            for topic, places in _topics(rows).items():
                after, before = ([answers[name][i] for i in places] for name in ("unlearned", "base"))
                each = left_over(topic, after, before, [rows[i].subject for i in places], seed)
                left += [each] if each is not None else []
    return {
        "figures": {name: [figure.as_json() for figure in each] for name, each in made.items()},
        "relative": [figure.as_json() for figure in left],
    }


def _write(results: Mapping[str, Any], out: Path) -> None:
    from vgid.report.utility import render

    prepare_output(out)
    write_text_atomic(out / "report.html", render(results))
    write_json_atomic(out / "results.json", results)
