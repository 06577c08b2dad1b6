"""lm-eval and lmms-eval, through their Python interfaces; each is imported only when one of its suites is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from vgid import processes
from vgid.errors import ConfigError, RunError
from vgid.evaluation.statistics import Interval
from vgid.models.loading import LoadedModel, refuse_code
from vgid.utility.figures import SuiteFigure

NORMAL = 1.96
"""Standard errors on either side of a 95 % interval, by the normal distribution."""
INSTALL = {
    "lm_eval": 'pip install "vgid[utility]"',
    "lmms_eval": "pip install lmms-eval, in an environment of its own, because it pins many versions",
}
"""How to install each harness."""


def import_harness(package: str) -> Any:
    """Import a harness.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise ConfigError(
            f"{name} is not installed" if error.name == package else f"{name} cannot be imported",
            got=str(error),
            fix=INSTALL[package],
        ) from error


def check_tasks(package: str, tasks: Sequence[str], folder: Path | None) -> Any:
    """Check that a harness knows all tasks.

    Args:
        package: `lm_eval` or `lmms_eval`.
        tasks: names of tasks, groups or tags.
        folder: folder with definitions of more tasks.

    Returns:
        The harness's task manager.

    Raises:
        ConfigError: the harness is not installed, or a task is unknown.
    """
    import_harness(package)
    manager = import_module(f"{package}.tasks").TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise ConfigError(
            f"{package.replace('_', '-')} does not know these tasks",
            expected="tasks that it lists, or that are defined in --utility-tasks",
            got=", ".join(unknown),
        )
    return manager


def run_lm_eval(loaded: LoadedModel, tasks: Sequence[str], manager: Any, *, max_rows: int | None, batch_size: int) -> list[SuiteFigure]:
    """Run text tasks of lm-eval on a model as it is loaded, adapter included.

    Args:
        loaded: the model.
        tasks: names of tasks.
        manager: the task manager from `check_tasks`.
        max_rows: questions of each task, at most.
        batch_size: questions that are asked at once.

    Returns:
        The figures of all tasks.

    Raises:
        RunError: lm-eval returned no figures.
    """
    wrapped = import_module("lm_eval.models.huggingface").HFLM(
        pretrained=loaded.model, tokenizer=loaded.processor.tokenizer, backend="causal", batch_size=batch_size
    )
    evaluate = import_module("lm_eval.evaluator").simple_evaluate
    found = evaluate(model=wrapped, tasks=list(tasks), limit=max_rows, task_manager=manager, log_samples=False, bootstrap_iters=0)
    return read_figures(found)


def run_lmms_eval(path: str, family: str, tasks: Sequence[str], manager: Any, *, max_rows: int | None) -> list[SuiteFigure]:
    """Run image tasks of lmms-eval on a checkpoint, one question at a time, since its LLaVA families take no more.

    Args:
        path: folder or hub id of the checkpoint.
        family: lmms-eval's name for the family of the model, such as `llava_hf`.
        tasks: names of tasks.
        manager: the task manager from `check_tasks`.
        max_rows: questions of each task, at most.

    Returns:
        The figures of all tasks.

    Raises:
        ConfigError: lmms-eval is not installed.
        ModelError: the checkpoint names code of its own, which lmms-eval would run.
        RunError: lmms-eval returned no figures.
    """
    refuse_code(path)
    import_harness("lmms_eval")
    evaluate = import_module("lmms_eval.evaluator").simple_evaluate
    # Its own defaults are a GPU and an empty device map, which transformers refuses.
    taken = signature(import_module("lmms_eval.models").get_model(family)).parameters
    device = str(processes.default_device())
    arguments = ",".join([f"pretrained={path}", *(f"{name}={device}" for name in ("device", "device_map") if name in taken)])
    options = {"limit": max_rows, "batch_size": 1, "log_samples": False, "task_manager": manager}
    return read_figures(evaluate(model=family, model_args=arguments, tasks=list(tasks), **options))


def read_figures(found: Mapping[str, Any] | None) -> list[SuiteFigure]:
    """Read the figures in a harness's results, with intervals from its standard errors where it gives any.

    Args:
        found: what the harness's `simple_evaluate` returned.

    Raises:
        RunError: there are no figures.
    """
    made = []
    for task, values in (found or {}).get("results", {}).items():
        counts = (found or {}).get("n-samples", {}).get(task) or {}
        for key, value in values.items():
            name, _, chain = key.partition(",")
            if not isinstance(value, int | float) or isinstance(value, bool) or "_stderr" in name or not chain:
                continue
            error = values.get(f"{name}_stderr,{chain}")
            spread = NORMAL * error if isinstance(error, int | float) else None
            interval = None if spread is None else Interval(float(value - spread), float(value + spread))
            made.append(
                SuiteFigure(str(task), name if chain == "none" else f"{name} ({chain})", float(value), interval, counts.get("effective"))
            )
    if not made:
        raise RunError("the harness returned no figures", expected="results with numbers", got="none")
    return made
