"""`vgid evaluate` on own data as a function: ask models the same splits, and build the results object (schema `vgid.results/1`)."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from vgid import processes
from vgid.artifacts import write_json_atomic
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import Rows, load_examples, rows_of, split_files
from vgid.evaluation.evaluate import SplitResult, evaluate, loss_ks_test
from vgid.models.export import release
from vgid.models.loading import load_model
from vgid.outcome import outcome_of
from vgid.progress import Stages, stages_or_own
from vgid.run_folder import check_output, output_folder

SCHEMA = "vgid.results/1"
Evaluated = Mapping[str, Mapping[str, SplitResult]]
"""Results by model (`base`, `unlearned`, `retrained`) and split."""
ModelPaths = Mapping[str, tuple[str, Path | None]]
"""Models by name (`base`, `unlearned`, `retrained`): folder or hub id, and the folder of an adapter or None."""


def versions() -> dict[str, str]:
    """Return the versions of Python, of vgid, and of the packages that figures depend on."""
    packages = {name: version(name) for name in ("vgid", "torch", "transformers", "peft", "accelerate")}
    return {"python": platform.python_version(), **packages}


def build_results(
    *,
    model: str,
    evaluated: Evaluated,
    config: RunConfig | None = None,
    seed: int = 0,
    ablation: Evaluated | None = None,
    seconds: Mapping[str, float] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Build the results object; it holds figures and settings, nothing of the questions and answers.

    Args:
        model: name or path of the model.
        evaluated: what `evaluate` returned, by model and split.
        config: configuration of the run that unlearned; None for an evaluation alone.
        seed: random seed of the run, or of the intervals.
        ablation: the same as `evaluated` for runs without a part of the method, by part.
        seconds: how long each stage took.
        extra: more entries of the object.

    Returns:
        The object of schema `vgid.results/1`. With results of `unlearned` and `retrained` on the split `forget` it has `forget_quality`, a
        Kolmogorov-Smirnov test of their losses (`vgid.evaluation.evaluate.loss_ks_test`).
    """
    names = list(dict.fromkeys(split for results in evaluated.values() for split in results))
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "method": config.method.name if config else None,
        "model": model,
        "seed": seed,
        "config": config.model_dump(mode="json") if config else None,
        "versions": versions(),
        "splits": {split: {name: results[split].as_json() for name, results in evaluated.items() if split in results} for split in names},
        "ablation": {name: {split: result.as_json() for split, result in results.items()} for name, results in (ablation or {}).items()},
        "seconds": dict(seconds or {}),
        **extra,
    }
    if {"unlearned", "retrained"} <= set(evaluated) and "forget" in evaluated["unlearned"]:
        ks = loss_ks_test(evaluated["unlearned"]["forget"], evaluated["retrained"]["forget"])
        results["forget_quality"] = {"statistic": ks.statistic, "p_value": ks.p_value}
    return results


def evaluate_models(
    models: Mapping[str, tuple[str | None, Path | None]],
    data: Sequence[Path] | Mapping[str, Rows],
    *,
    turns: Literal["last", "all"] = "last",
    image_root: str | Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
    stages: Stages | None = None,
    shard: bool = False,
) -> dict[str, Any]:
    """Read and check all data, then ask one model after the other.

    Args:
        models: `unlearned`, and `base`, `retrained` or others to compare with: folder or hub id, and folder of an adapter or None. A model
            with None in place of a folder is left out.
        data: files and folders, as `read_splits` takes them, or rows by name of the split.
        turns: of a conversation, `last` takes the last answer; `all` makes a row of each answer.
        image_root: folder that image paths are relative to and must stay in; None for the data file's own.
        seed: random seed of the intervals.
        out: folder for `results.json`.
        overwrite: replace what an earlier run left in it.
        stages: shows and times what is done; None shows progress bars.
        shard: where a launcher started several processes, hold each model sharded over them; all call this, and the first one writes.

    Returns:
        The results object (schema `vgid.results/1`): figures by split and model, nothing of the questions and answers; with a
        base and a split `forget`, the `outcome` too.

    Raises:
        DataError: rows are bad.
        ModelError: a model cannot be loaded.
        OutputError: the folder holds results already, or cannot be written.
    """
    first = not shard or processes.launched_first()
    if out is not None and first:
        check_output(out, overwrite, inputs=[*(data.values() if isinstance(data, Mapping) else data), *models.values()])
    if isinstance(data, Mapping):
        splits = {name: rows_of(rows, turns=turns, image_root=image_root) for name, rows in data.items()}
    else:
        splits = read_splits(data, turns=turns, image_root=image_root)
    if shard:
        processes.start()
    evaluated = {}
    with stages_or_own(stages) as shown:
        for name, (path, adapter) in models.items():
            if path is not None:
                with shown(f"Examining the {name} model", "evaluate") as tick:
                    loaded = load_model(path, adapter=adapter, shard=shard)
                    evaluated[name] = evaluate(loaded, splits, seed=seed, on_progress=tick)
                    release(loaded.model)  # before the next one is loaded
        found = outcome_of(evaluated)
        known: dict[str, Any] = {} if found.status == "not examined" else {"outcome": found.as_json()}
        results = build_results(model=str(models["unlearned"][0]), evaluated=evaluated, seed=seed, seconds=shown.seconds, **known)
    if out is not None and first:
        with output_folder(out):
            write_json_atomic(out / "results.json", results)
    return results


def read_splits(data: Sequence[Path], **reading: Any) -> dict[str, list[Example]]:
    """Read data files as splits, named as `vgid.data.sources.split_files` does; a folder stands for all data files in it.

    Args:
        data: files and folders.
        reading: options of `load_examples`.

    Raises:
        DataError: two splits have the same name, a folder holds no data file, or rows are bad.
    """
    return {name: [row for file in files for row in load_examples(file, **reading)] for name, files in split_files(data).items()}
