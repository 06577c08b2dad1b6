"""What `vgid unlearn` and `vgid evaluate` do between reading files and showing a table."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from vgid import processes
from vgid.artifacts import prepare_output, write_json_atomic
from vgid.checks import Preflight, as_json, preflight
from vgid.checks.screen import screen
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import Rows, check_disjoint, load_examples, rows_of, split_files
from vgid.errors import RunError
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.results import build_results
from vgid.training.fit import forget_checkpoint, neutral_retain, unlearn
from vgid.training.trackers import check_trackers
from vgid.training.trainer import count_steps

NEUTRAL_LOOKED_AT = 8
"""Neutral rows that a preflight looks at."""

log = logging.getLogger("vgid")


def unlearn_command(
    model: str,
    forget: Rows,
    retain: Path | None,
    config: RunConfig,
    out: Path,
    *,
    examine: int,
    skip_bad_rows: bool,
    allow_unknown: bool = False,
    sample: int = 32,
    resume: bool = False,
    checked: Mapping[str, Any] | None = None,
    stages: Stages,
) -> dict[str, Any]:
    """Read and check all data, then load the model and check it, examine, unlearn, export, examine again.

    Where a launcher started several processes, all examine the base, so that none waits long for another; the first one writes, and
    examines what came out. `checked`: what a preflight of this very run found, as JSON; then there is no other.
    """
    if resume and (done := _completed(out, model, config)):
        log.info("this run is complete; there is nothing to resume")
        return done
    check_trackers(config.training.report_to, out)
    processes.start()
    forget_rows, retain_rows = _read(forget, retain, skip_bad_rows, config)
    loaded = load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    options: dict[str, Any] = {"examine": examine, "allow_unknown": allow_unknown, "sample": sample, "resume": resume, "checked": checked}
    return unlearn_rows(loaded, forget_rows, retain_rows, config, out, stages=stages, **options)


def unlearn_rows(
    loaded: LoadedModel,
    forget_rows: list[Example],
    retain_rows: list[Example],
    config: RunConfig,
    out: Path,
    *,
    examine: int,
    allow_unknown: bool,
    sample: int,
    resume: bool,
    checked: Mapping[str, Any] | None = None,
    stages: Stages,
) -> dict[str, Any]:
    """Check the model, examine, unlearn, export, examine again; the model is changed in place."""
    first = processes.rank() == 0
    if checked is None:
        found = _preflight(loaded, forget_rows, retain_rows, config, stages, allow_unknown=allow_unknown, sample=sample)
        if first:
            stages.show(screen(found))
        found.raise_errors()
        checked = as_json(found, texts=False)
    if not retain_rows and config.neutral_retain:
        with stages("Answering neutral questions", "neutral"):
            retain_rows = processes.from_first(neutral_retain(loaded, forget_rows, config))
    splits = {"forget": _sample(forget_rows, examine, config.seed), "retain": _sample(retain_rows, examine, config.seed)}
    splits = {name: rows for name, rows in splits.items() if rows}
    if first:
        prepare_output(out, keep=resume)
    evaluated: dict[str, Mapping[str, SplitResult]] = {}
    if splits:
        with stages("Examining the base model", "evaluate") as tick:
            evaluated["base"] = evaluate(loaded, splits, seed=config.seed, on_progress=tick)
    with stages("Unlearning", "unlearn") as tick:
        fitted = unlearn(loaded, forget_rows, retain_rows, config, out=out, progress=tick, resume=resume, keep_checkpoint=True)
    if splits and first:
        with stages("Examining the unlearned model", "evaluate") as tick:
            evaluated["unlearned"] = evaluate(fitted.loaded, splits, seed=config.seed, on_progress=tick)
    results = build_results(
        model=loaded.path,
        evaluated=evaluated,
        config=config,
        seed=config.seed,
        seconds=stages.seconds,
        training=fitted.stopped,
        preflight=dict(checked),
    )
    if first:
        write_json_atomic(out / "results.json", results)
        forget_checkpoint(out)
    return results


def _completed(out: Path, model: str, config: RunConfig) -> dict[str, Any] | None:
    """The results of a run that has nothing left to do.

    Raises:
        RunError: it was another run.
    """
    if not (out / "results.json").is_file():
        return None
    results: dict[str, Any] = json.loads((out / "results.json").read_text("utf-8"))
    mine = {"model": model, "config": config.model_dump(mode="json")}
    other = [name for name, value in mine.items() if results.get(name) != value]
    if other:
        raise RunError(
            "the folder holds a complete run with other settings",
            where=out,
            got=f"other {' and '.join(other)}",
            fix="choose another --out, or add --overwrite in place of --resume",
        )
    return results


def preflight_command(
    model: str,
    forget: Rows,
    retain: Path | None,
    config: RunConfig,
    *,
    skip_bad_rows: bool,
    allow_unknown: bool,
    show_forgotten: bool,
    sample: int,
    stages: Stages,
) -> Preflight:
    """Read and check all data, load the model, and look at everything a run depends on; nothing is written."""
    check_trackers(config.training.report_to)
    forget_rows, retain_rows = _read(forget, retain, skip_bad_rows, config)
    loaded = load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    options = {"allow_unknown": allow_unknown, "show_forgotten": show_forgotten, "sample": sample}
    return _preflight(loaded, forget_rows, retain_rows, config, stages, **options)


def _read(forget: Rows, retain: Path | None, skip_bad_rows: bool, config: RunConfig) -> tuple[list[Example], list[Example]]:
    """Both sets; of the retain set no more than the run can look at."""
    forget_rows = load_examples(forget, skip_bad_rows=skip_bad_rows) if isinstance(forget, Path) else list(forget)
    needed = retain_needed(config, len(forget_rows))
    retain_rows = load_examples(retain, skip_bad_rows=skip_bad_rows, at_most=needed, seed=config.seed) if retain is not None else []
    check_disjoint(forget_rows, retain_rows)
    return forget_rows, retain_rows


def retain_needed(config: RunConfig, forget_rows: int) -> int:
    """Retain rows that a run can look at."""
    return count_steps(config.training, forget_rows, 0) * config.training.retain_rows + config.validation.rows


def _preflight(
    loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig, stages: Stages, **options: Any
) -> Preflight:
    """Where neutral rows will stand in for a retain set, some of them are looked at."""
    with stages("Preflight", "preflight"):
        if not retain and config.neutral_retain:
            fewer = {"neutral_retain": min(NEUTRAL_LOOKED_AT, config.neutral_retain)}
            retain = neutral_retain(loaded, forget, config.model_copy(update=fewer))
        return preflight(loaded, forget, retain, config, **options)


def evaluate_command(
    models: Mapping[str, tuple[str | None, Path | None]],
    data: Sequence[Path] | Mapping[str, Rows],
    seed: int,
    out: Path | None,
    stages: Stages,
) -> dict[str, Any]:
    """Read and check all data, then examine one model after the other; each is a (path, adapter) pair.

    `data`: files and folders, as `read_splits` takes them, or splits by name.
    """
    splits = {name: rows_of(rows) for name, rows in data.items()} if isinstance(data, Mapping) else read_splits(data)
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
    """Read splits by name; a folder gives all data files in it.

    Raises:
        DataError: two splits have the same name, a folder holds no data file, or rows are bad.
    """
    return {name: [row for file in files for row in load_examples(file)] for name, files in split_files(data).items()}


def _sample(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    return list(rows) if len(rows) <= count else Random(seed).sample(list(rows), count)
