"""What `vgid evaluate --benchmark` does: read all data, ask one model after the other, write figures and a page."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgid.artifacts import MARK, check_output, prepare_output, write_json_atomic, write_text_atomic
from vgid.benchmarking.asking import as_json, ask, check_items, figures, run_fingerprint
from vgid.benchmarking.store import AnswerStore, model_fingerprint
from vgid.benchmarks.base import Answered, Benchmark, Figure
from vgid.errors import ConfigError
from vgid.evaluation.aggregates import composite
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.results import versions

SCHEMA = "vgid.benchmark/1"
ANSWERS, IDENTITY = "answers", "identity.json"
"""What a run that was cut off leaves: answers, and of one that also unlearns what it was about."""
Models = Mapping[str, tuple[str, Path | None]]
"""`base`, `unlearned`, `retrained` to (path, adapter)."""


def run_benchmark(
    benchmark: Benchmark,
    models: Models,
    out: Path | None,
    *,
    seed: int = 0,
    batch_size: int = 64,
    overwrite: bool = False,
    keep_answers: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Ask every model everything; with `out` answers are kept there until all is done, so that a killed run goes on where it was.

    Raises:
        ConfigError: the benchmark needs a model that never saw the forget set, and there is none.
        DataError: the data are not there, or of another layout.
        OutputError: the folder holds results already, or cannot be written.
    """
    check_reference(benchmark, "retrained" in models)
    if out is not None:
        check_resumable(out, overwrite)
    with stages("Reading the data", "read"):
        total, data = check_items(benchmark)
    if out is not None:
        prepare_resumable(out, overwrite)
    results = ask_models(benchmark, models, out, total=total, data=data, seed=seed, batch_size=batch_size, stages=stages)
    if out is not None:
        write_results(results, out, keep_answers)
    return results


def check_reference(benchmark: Benchmark, given: bool) -> None:
    """Make sure that a benchmark that compares with a model that never saw the forget set has one.

    Raises:
        ConfigError: there is none.
    """
    if benchmark.needs_reference and not given:
        raise ConfigError(
            f"{benchmark.title} compares with a model that never saw the forget set",
            expected="--reference, a model trained without it",
            fix="give one, or set forget_quality=false (evaluate: --set, bench: --protocol), which the results name",
        )


def ask_models(
    benchmark: Benchmark, models: Models, out: Path | None, *, total: int, data: str, seed: int, batch_size: int, stages: Stages
) -> dict[str, Any]:
    """Ask one model after the other what the answers in `out` do not hold yet; gives the results object.

    `total` and `data` are from `check_items`.
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
            gc.collect()  # one model at a time
    with stages("Measuring", "measure"):
        made = {name: figures(benchmark, each, answered.get("retrained"), seed) for name, each in answered.items()}
        return build_results(benchmark, known, made, total=total, data=data, seed=seed, seconds=stages.seconds)


def build_results(
    benchmark: Benchmark,
    models: Mapping[str, Mapping[str, str | None]],
    made: Mapping[str, Sequence[Figure]],
    *,
    total: int,
    data: str,
    seed: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The results object: figures and settings, nothing of what was asked or answered.

    `models` says of each model where it is and what it is (SHA-256 of its weights; the hub's commit), `data` the same of the questions.
    """
    place = benchmark._place
    return {
        "schema": SCHEMA,
        "benchmark": {
            "name": benchmark.name,
            "title": benchmark.title,
            "version": benchmark.version,
            "paper": benchmark.paper,
            "forget": benchmark.forget_set,
            "source": place.source if place else None,
            "commit": place.commit if place else None,
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
        "figures": {name: as_json(benchmark, each) for name, each in made.items()},
        "knowledge": {name: benchmark.knowledge(each) for name, each in made.items()},
        "utility": {name: benchmark.utility(each) for name, each in made.items()},
        "composite": _composite(benchmark, made),
        "published": published(benchmark),
        "unlearning": None,
    }


def published(benchmark: Benchmark) -> list[dict[str, Any]]:
    """What others published about this forget set, or about no forget set in particular: where, names of figures, values by model."""
    import yaml

    entries: list[dict[str, Any]] = yaml.safe_load((files("vgid.benchmarking") / "published.yaml").read_text("utf-8"))
    return [each for each in entries if each["benchmark"] == benchmark.name and each["forget"] in (benchmark.forget_set, None)]


def _composite(benchmark: Benchmark, made: Mapping[str, Sequence[Figure]]) -> dict[str, Any] | None:
    """Our single number; None without both anchors."""
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


def check_resumable(out: Path, overwrite: bool) -> None:
    """Make sure that a run may write, or go on, in a folder; changes nothing.

    Raises:
        OutputError: the folder holds finished results and is not to be replaced, or something that no run of vgid left there.
    """
    if overwrite or not unfinished(out):
        check_output(out, overwrite)


def prepare_resumable(out: Path, overwrite: bool) -> None:
    """Make the folder anew, unless a run is to go on in it."""
    if overwrite or not unfinished(out):
        prepare_output(out)


def unfinished(out: Path) -> bool:
    """Whether a run of a benchmark was cut off here."""
    inside = {child.name for child in out.iterdir()} if out.is_dir() else set()
    return MARK in inside and bool(inside & {ANSWERS, IDENTITY}) and "results.json" not in inside


def write_results(results: Mapping[str, Any], out: Path, keep_answers: bool) -> None:
    """The page, then `results.json`, which says that all is done; answers are removed unless they are to be kept."""
    from vgid.report.benchmark import render

    write_text_atomic(out / "report.html", render(results))
    write_json_atomic(out / "results.json", results)
    if not keep_answers:
        shutil.rmtree(out / ANSWERS, ignore_errors=True)
