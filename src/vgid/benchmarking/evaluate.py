"""`vgid evaluate --benchmark` as a function: read all data, ask one model after the other, write figures and a page."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.benchmarking.asking import ask, check_items, compute_figures, figures_as_json, run_fingerprint
from vgid.benchmarking.store import AnswerStore, model_fingerprint
from vgid.benchmarks.base import Answered, Benchmark, Figure
from vgid.errors import ConfigError
from vgid.evaluation.aggregates import composite
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.results import ModelPaths, versions
from vgid.run_folder import MARK, check_output, discard, output_folder

SCHEMA = "vgid.benchmark/1"
ANSWERS, IDENTITY = "answers", "identity.json"
"""What a run that was stopped leaves in its folder: the answers so far, and of `vgid bench` what the run depends on."""
FINETUNED = "finetuned"
"""Subfolder for the model that learns a benchmark's people, where a run makes it: its first step."""


def run_benchmark(
    benchmark: Benchmark,
    models: ModelPaths,
    out: Path | None,
    *,
    seed: int = 0,
    batch_size: int = 64,
    overwrite: bool = False,
    keep_answers: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Ask every model every question of a benchmark; called again after it was stopped, go on where it was.

    Args:
        benchmark: the benchmark, opened over its data.
        models: `base`, `unlearned` and `retrained`, or some of them.
        out: folder for `results.json` and `report.html`, and for the answers while the run lasts; None writes nothing.
        seed: random seed of the intervals.
        batch_size: questions that are asked at once.
        overwrite: replace what an earlier run left in `out`.
        keep_answers: keep the answers in `out`; they hold what must be forgotten.
        stages: shows and times what is done.

    Returns:
        The results object as it is written to `results.json` (schema `vgid.benchmark/1`).

    Raises:
        ConfigError: the benchmark needs a model that never saw the forget set, and there is none.
        DataError: the data are not there, or have another layout.
        OutputError: the folder holds results already, or cannot be written.
    """
    check_reference(benchmark, "retrained" in models)
    if out is not None:
        check_resumable(out, overwrite, [*benchmark.inputs, *models.values()])
    with stages("Reading the data", "read"):
        total, data = check_items(benchmark)
    with resumable_folder(out, overwrite):
        results = ask_models(benchmark, models, out, total=total, data=data, seed=seed, batch_size=batch_size, stages=stages)
        if out is not None:
            write_results(results, out, keep_answers)
    return results


def check_reference(benchmark: Benchmark, given: bool) -> None:
    """Check that a benchmark that compares with a model that never saw the forget set has one.

    Raises:
        ConfigError: there is none.
    """
    if benchmark.needs_reference and not given:
        raise ConfigError(
            f"{benchmark.title} compares with a model that never saw the forget set",
            expected="--reference, a model trained without it",
            fix="give one, or give --protocol forget_quality=false, which the results name as a deviation",
        )


def ask_models(
    benchmark: Benchmark, models: ModelPaths, out: Path | None, *, total: int, data: str, seed: int, batch_size: int, stages: Stages
) -> dict[str, Any]:
    """Ask one model after the other the questions that the answers in `out` do not cover yet.

    Args:
        benchmark: the benchmark, opened over its data.
        models: `base`, `unlearned` and `retrained`, or some of them.
        out: folder with the answers; None keeps them in memory.
        total: number of questions, from `check_items`.
        data: fingerprint of the questions, from `check_items`.
        seed: random seed of the intervals.
        batch_size: questions that are asked at once.
        stages: shows and times what is done.

    Returns:
        The results object; nothing is written yet.
    """
    answered: dict[str, list[Answered]] = {}
    known: dict[str, dict[str, str | None]] = {}
    for name, (path, adapter) in models.items():
        with stages(f"Asking the {name} model", "evaluate") as tick:
            loaded = load_model(path, adapter=adapter)
            weights = model_fingerprint(loaded)
            known[name] = {"path": path, "weights": weights, "commit": getattr(loaded.model.config, "_commit_hash", None)}
            file = None if out is None else out / ANSWERS / f"{name}.jsonl"
            with AnswerStore(file, run_fingerprint(benchmark, data, weights)) as store:
                answered[name] = ask(benchmark, loaded, store, total=total, batch_size=batch_size, on_progress=tick)
            del loaded
            gc.collect()  # one model in memory at a time
    with stages("Measuring", "measure"):
        made = {name: compute_figures(benchmark, each, answered.get("retrained"), seed) for name, each in answered.items()}
        return build_benchmark_results(benchmark, known, made, total=total, data=data, seed=seed, seconds=stages.seconds)


def build_benchmark_results(
    benchmark: Benchmark,
    models: Mapping[str, Mapping[str, str | None]],
    made: Mapping[str, Sequence[Figure]],
    *,
    total: int,
    data: str,
    seed: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Build the results object; it holds figures and settings, nothing of the questions and answers.

    Args:
        benchmark: the benchmark.
        models: by model its `path`, `weights` (SHA-256) and `commit` on the hub.
        made: by model its figures.
        total: number of questions.
        data: fingerprint of the questions.
        seed: random seed of the intervals.
        seconds: how long each stage took.

    Returns:
        The object of schema `vgid.benchmark/1`.
    """
    return {
        "schema": SCHEMA,
        "benchmark": {
            "name": benchmark.name,
            "title": benchmark.title,
            "version": benchmark.version,
            "paper": benchmark.paper,
            "forget": benchmark.forget_set,
            **benchmark.origin(),
            "questions": data,
        },
        "protocol": benchmark.protocol.model_dump(mode="json"),
        "deviations": benchmark.protocol.deviations(),
        "notes": benchmark.notes(),
        "models": {name: dict(known) for name, known in models.items()},
        "questions": total,
        "seed": seed,
        "versions": versions(),
        "seconds": dict(seconds),
        "metrics": {name: metric.text for name, metric in benchmark.metrics.items()},
        "figures": {name: figures_as_json(benchmark, each) for name, each in made.items()},
        "knowledge": {name: benchmark.knowledge(each) for name, each in made.items()},
        "utility": {name: benchmark.utility(each) for name, each in made.items()},
        "composite": _composite(benchmark, made),
        "published": published_figures(benchmark),
        "unlearning": None,
    }


def published_figures(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Return what others published about this forget set, or without naming a forget set: source, names of figures, values by model."""
    import yaml

    entries: list[dict[str, Any]] = yaml.safe_load((files("vgid.benchmarking") / "published.yaml").read_text("utf-8"))
    return [each for each in entries if each["benchmark"] == benchmark.name and each["forget"] in (benchmark.forget_set, None)]


def _composite(benchmark: Benchmark, made: Mapping[str, Sequence[Figure]]) -> dict[str, Any] | None:
    """Return the composite score; None without the base and the reference, or where the base has no utility to lose."""
    if not {"base", "unlearned", "retrained"} <= set(made):
        return None
    known = {name: benchmark.knowledge(each) for name, each in made.items()}
    useful = {name: benchmark.utility(each) for name, each in made.items()}
    if useful["base"] == 0:
        return None
    return composite(
        before=known["base"],
        after=known["unlearned"],
        reference=known["retrained"],
        utility_before=useful["base"],
        utility_after=useful["unlearned"],
    )._asdict()


def check_resumable(out: Path, overwrite: bool, inputs: Iterable[object]) -> None:
    """Check that a run may start, or go on, in a folder; change nothing.

    Args:
        out: the output folder.
        overwrite: whether earlier results may be replaced.
        inputs: what the run reads.

    Raises:
        OutputError: the folder holds finished results that must not be replaced, something that no run of vgid left there, or an input.
    """
    check_output(out, overwrite, resume=is_unfinished(out), inputs=inputs)


def resumable_folder(out: Path | None, overwrite: bool) -> AbstractContextManager[None]:
    """Return the context of a run that goes on with the answers in its folder, unless they are to be replaced."""
    if out is None:
        return nullcontext()
    return output_folder(out, keep=not overwrite and is_unfinished(out), goes_on=lambda: is_unfinished(out))


def is_unfinished(out: Path) -> bool:
    """Return whether a run of a benchmark was stopped in this folder."""
    inside = {child.name for child in out.iterdir()} if out.is_dir() else set()
    return MARK in inside and bool(inside & {ANSWERS, IDENTITY, FINETUNED}) and "results.json" not in inside


def write_results(results: Mapping[str, Any], out: Path, keep_answers: bool) -> None:
    """Write the page, then `results.json`, which marks the run as finished; remove the answers unless they are to be kept.

    Args:
        results: the results object.
        out: folder of the run.
        keep_answers: keep the answers, which hold what must be forgotten.
    """
    from vgid.report.benchmark import render_benchmark

    write_text_atomic(out / "report.html", render_benchmark(results))
    write_json_atomic(out / "results.json", results)
    if not keep_answers:
        discard(out / ANSWERS)
