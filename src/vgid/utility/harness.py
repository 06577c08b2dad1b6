"""lm-eval and lmms-eval through their own interfaces; neither is needed before a suite of theirs is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from vgid.errors import ConfigError, RunError
from vgid.evaluation.statistics import Interval
from vgid.models.loading import LoadedModel
from vgid.utility.figures import Figure

NORMAL = 1.96
"""Standard errors to either side of a 95 % interval."""
INSTALL = {"lm_eval": 'pip install "vgid[utility]"', "lmms_eval": "pip install lmms-eval (in an environment of its own: it pins much)"}


def need(package: str) -> Any:
    """A harness.

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


def check_tasks(tasks: Sequence[str], folder: Path | None) -> Any:
    """Make sure that lm-eval knows all tasks, its own and those defined in a folder; gives its task manager.

    Raises:
        ConfigError: lm-eval is not there, or a task is unknown.
    """
    need("lm_eval")
    manager = import_module("lm_eval.tasks").TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown:
        raise ConfigError(
            "lm-eval knows no such task",
            expected="tasks that `lm-eval ls tasks` lists, or that are defined in --utility-tasks",
            got=", ".join(unknown),
        )
    return manager


def lm_eval(loaded: LoadedModel, tasks: Sequence[str], manager: Any, *, limit: int | None, batch_size: int) -> list[Figure]:
    """Text tasks of lm-eval on the model as it is loaded, adapter included.

    Raises:
        RunError: a task gave no figures.
    """
    wrapped = import_module("lm_eval.models.huggingface").HFLM(
        pretrained=loaded.model, tokenizer=loaded.processor.tokenizer, backend="causal", batch_size=batch_size
    )
    evaluate = import_module("lm_eval.evaluator").simple_evaluate
    found = evaluate(model=wrapped, tasks=list(tasks), limit=limit, task_manager=manager, log_samples=False, bootstrap_iters=0)
    return figures(found)


def lmms_eval(path: str, kind: str, tasks: Sequence[str], *, limit: int | None, batch_size: int) -> list[Figure]:
    """Picture tasks of lmms-eval on a checkpoint; `kind` is its own name for the family, such as `llava_hf`.

    Raises:
        ConfigError: lmms-eval is not there.
        RunError: a task gave no figures.
    """
    need("lmms_eval")
    evaluate = import_module("lmms_eval.evaluator").simple_evaluate
    options = {"limit": limit, "batch_size": batch_size, "log_samples": False}
    return figures(evaluate(model=kind, model_args=f"pretrained={path}", tasks=list(tasks), **options))


def figures(found: Mapping[str, Any] | None) -> list[Figure]:
    """The figures in a harness's results, with intervals from its own standard errors where it gives any.

    Raises:
        RunError: there are none.
    """
    made = []
    for task, values in (found or {}).get("results", {}).items():
        counts = (found or {}).get("n-samples", {}).get(task) or {}
        for key, value in values.items():
            name, _, chain = key.partition(",")
            if not isinstance(value, int | float) or isinstance(value, bool) or name.endswith("_stderr") or not chain:
                continue
            error = values.get(f"{name}_stderr,{chain}")
            spread = NORMAL * error if isinstance(error, int | float) else None
            interval = None if spread is None else Interval(float(value - spread), float(value + spread))
            made.append(
                Figure(str(task), name if chain == "none" else f"{name} ({chain})", float(value), interval, counts.get("effective"))
            )
    if not made:
        raise RunError("the harness gave no figures", expected="results with numbers", got="none")
    return made
