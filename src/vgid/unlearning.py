"""What `vgid unlearn` and `vgid evaluate` do between reading files and showing a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from vgid.artifacts import prepare_output, write_json_atomic
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import check_disjoint, load_examples
from vgid.errors import DataError
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.models.loading import load_model
from vgid.pipeline import unlearn
from vgid.progress import Stages
from vgid.results import build_results


def unlearn_command(
    model: str,
    forget: Path,
    retain: Path | None,
    config: RunConfig,
    out: Path,
    *,
    examine: int,
    skip_bad_rows: bool,
    stages: Stages,
) -> dict[str, Any]:
    """Read and check all data, then load the model, examine, unlearn, export, examine again."""
    forget_rows = load_examples(forget, skip_bad_rows=skip_bad_rows)
    retain_rows = load_examples(retain, skip_bad_rows=skip_bad_rows) if retain is not None else []
    check_disjoint(forget_rows, retain_rows)
    splits = {"forget": _sample(forget_rows, examine, config.seed), "retain": _sample(retain_rows, examine, config.seed)}
    splits = {name: rows for name, rows in splits.items() if rows}
    loaded = load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    prepare_output(out)
    evaluated: dict[str, Mapping[str, SplitResult]] = {}
    if splits:
        with stages("Examining the base model", "evaluate") as tick:
            evaluated["base"] = evaluate(loaded, splits, seed=config.seed, on_progress=tick)
    with stages("Unlearning", "unlearn") as tick:
        fitted = unlearn(loaded, forget_rows, retain_rows, config, out=out, progress=tick)
    if splits:
        with stages("Examining the unlearned model", "evaluate") as tick:
            evaluated["unlearned"] = evaluate(fitted.loaded, splits, seed=config.seed, on_progress=tick)
    results = build_results(
        model=model, evaluated=evaluated, config=config, seed=config.seed, seconds=stages.seconds, training=fitted.stopped
    )
    write_json_atomic(out / "results.json", results)
    return results


def evaluate_command(
    models: Mapping[str, tuple[str | None, Path | None]], data: Sequence[Path], seed: int, out: Path | None, stages: Stages
) -> dict[str, Any]:
    """Read and check all data, then examine one model after the other; each is a (path, adapter) pair."""
    splits = read_splits(data)
    if out is not None:
        prepare_output(out)
    evaluated = {}
    for name, (path, adapter) in models.items():
        with stages(f"Examining the {name} model", "evaluate") as tick:
            evaluated[name] = evaluate(load_model(str(path), adapter=adapter), splits, seed=seed, on_progress=tick)
    results = build_results(model=str(models["unlearned"][0]), evaluated=evaluated, seed=seed, seconds=stages.seconds)
    if out is not None:
        write_json_atomic(out / "results.json", results)
    return results


def read_splits(data: Sequence[Path]) -> dict[str, list[Example]]:
    """Read splits: each file is one, named by its stem; a folder gives all data files in it.

    Raises:
        DataError: two splits have the same name, a folder holds no data file, or rows are bad.
    """
    files: list[Path] = []
    for path in data:
        inside = sorted(child for child in path.iterdir() if child.suffix in (".jsonl", ".parquet")) if path.is_dir() else [path]
        if not inside:
            raise DataError("no data file in the folder", where=str(path), expected="*.jsonl or *.parquet")
        files += inside
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("two splits have the same name", got=repr(twice), fix="rename one of the files")
    return {name: load_examples(file) for name, file in zip(names, files, strict=True)}


def _sample(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    return list(rows) if len(rows) <= count else Random(seed).sample(list(rows), count)
