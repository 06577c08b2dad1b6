"""What `vgid bench` does: unlearn a benchmark's forget set by a recipe, then ask the models before and after as the benchmark asks."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgid import processes
from vgid.artifacts import write_json_atomic
from vgid.benchmarking.command import IDENTITY, ask_models, check_reference, check_resumable, prepare_resumable, write_results
from vgid.benchmarking.run import check_items
from vgid.benchmarking.splits import open_benchmark, read_split
from vgid.benchmarking.store import model_fingerprint
from vgid.benchmarks.base import Benchmark, forgetting
from vgid.config import BenchmarkChoice, RunConfig
from vgid.data.example import Example
from vgid.data.sources import check_disjoint
from vgid.errors import ConfigError, StoppedError
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.training.fingerprint import check_same, fingerprint
from vgid.training.fit import forget_checkpoint
from vgid.training.trackers import check_trackers
from vgid.unlearning import retain_needed, unlearn_rows

UNLEARNED = "unlearned"
"""Folder of the run that unlearns, in the output folder."""

log = logging.getLogger("vgid")


class Sides(NamedTuple):
    """A benchmark where it is asked from, and where its rows for unlearning are."""

    asked: Benchmark
    trained: Benchmark


def choose(config: RunConfig, name: str | None, given: Mapping[str, str | None], protocol: Mapping[str, object]) -> RunConfig:
    """Put what the command line says about the benchmark into the configuration, over what the recipe says.

    A copy of the data takes the place of both places that a recipe names.

    Raises:
        ConfigError: neither names a benchmark, or the two name different ones.
    """
    recipe = config.benchmark
    if name is None and recipe is None:
        raise ConfigError(
            "there is no benchmark to run", expected="a benchmark's name, or a recipe that names one", fix="see docs/benchmarks.md"
        )
    if name is not None and recipe is not None and name != recipe.name:
        raise ConfigError("the recipe is for another benchmark", expected=recipe.name, got=name, fix="leave the name or the recipe out")
    start = recipe or BenchmarkChoice(name=str(name))
    changes: dict[str, str | None] = {key: value for key, value in given.items() if value is not None}
    if "data" in changes:
        changes = {"train": None, **changes}
    choice = start.model_copy(update={**changes, "protocol": {**start.protocol, **protocol}})
    return config.model_copy(update={"benchmark": choice})


def open_sides(choice: BenchmarkChoice) -> Sides:
    """Both sides of a benchmark.

    Raises:
        ConfigError: no such benchmark or setting.
        DataError: the data are not there.
    """
    asked = open_benchmark(choice.name, choice.data, choice.forget, choice.protocol)
    trained = asked if choice.train is None else open_benchmark(choice.name, choice.train, choice.forget, choice.protocol)
    return Sides(asked, trained)


def bench_command(
    model: str,
    config: RunConfig,
    out: Path,
    *,
    reference: str | None = None,
    batch_size: int = 64,
    skip_bad_rows: bool = False,
    allow_unknown: bool = False,
    sample: int = 32,
    overwrite: bool = False,
    keep_answers: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Unlearn, then ask the model before, after, and the reference; given again after a kill, it goes on where it was.

    Raises:
        ConfigError: no benchmark, a method without a checkpoint of its own, several processes, or a reference that is needed is missing.
        DataError: the data are not there, or of another layout.
        OutputError: the folder holds results already, or cannot be written.
        RunError: the unfinished run in the folder was another one, or unlearning failed.
    """
    if config.benchmark is None:
        raise ConfigError("there is no benchmark to run", expected="a configuration with a benchmark")
    _check_method(config)
    check_trackers(config.training.report_to, out)
    sides = open_sides(config.benchmark)
    check_reference(sides.asked, reference is not None)
    check_resumable(out, overwrite)
    with stages("Reading the data", "read"):
        total, data = check_items(sides.asked)
        forget, retain = read_sides(sides.trained, config, skip_bad_rows)
    unlearning = _unlearn(model, forget, retain, config, out, overwrite, stages, allow_unknown=allow_unknown, sample=sample)
    models: dict[str, tuple[str, Path | None]] = {"base": (model, None), "unlearned": (str(out / UNLEARNED / "merged"), None)}
    models |= {"retrained": (reference, None)} if reference is not None else {}
    results = ask_models(sides.asked, models, out, total=total, data=data, seed=config.seed, batch_size=batch_size, stages=stages)
    results["notes"] += notes(forget, sides.asked)
    place = sides.trained._place
    results["unlearning"] = {
        **{name: unlearning[name] for name in ("method", "config", "training", "preflight")},
        "forget_rows": len(forget),
        "retain_rows": len(retain),
        "source": place.source if place else None,
        "commit": place.commit if place else None,
    }
    write_results(results, out, keep_answers)
    (out / IDENTITY).unlink(missing_ok=True)
    return results


def notes(forget: Sequence[Example], asked: Benchmark) -> list[str]:
    """What a reader of the figures must know about the rows that were unlearned."""
    by_name = any(not item.example.images for item in asked.items() if forgetting(item.split))
    if by_name and all(row.images for row in forget):
        return ["Every row to forget came with a picture, so nothing was trained on what the model says by name alone: expect it to stay."]
    return []


def read_sides(benchmark: Benchmark, config: RunConfig, skip_bad_rows: bool) -> tuple[list[Example], list[Example]]:
    """Rows to forget, and as many of those to retain as the run can look at.

    Raises:
        DataError: rows are bad, there are none, or one is in both sets.
    """
    first, second = benchmark.pair
    forget = read_split(benchmark, first, skip_bad_rows=skip_bad_rows)
    needed = retain_needed(config, len(forget))
    retain = read_split(benchmark, second, skip_bad_rows=skip_bad_rows, at_most=needed, seed=config.seed) if needed else []
    check_disjoint(forget, retain)
    return forget, retain


def _check_method(config: RunConfig) -> None:
    method = config.build_method()
    if method.kind == "inference":
        raise ConfigError(
            f"the method {config.method['name']} changes the question, not the model, so that there is no unlearned checkpoint to ask",
            expected="a method that changes weights",
            fix="compare it by `vgid compare`, which asks through its wrapper",
        )
    if processes.count() > 1:
        raise ConfigError(
            "a benchmark runs in one process",
            got=f"{processes.count()} processes",
            fix="use `vgid unlearn` under the launcher, then `vgid evaluate --benchmark` without it",
        )


def _unlearn(
    model: str,
    forget: list[Example],
    retain: list[Example],
    config: RunConfig,
    out: Path,
    overwrite: bool,
    stages: Stages,
    **options: Any,
) -> dict[str, Any]:
    """Unlearn into the output folder, or take over what an earlier run of the same has finished there."""
    config = config.model_copy(update={"benchmark": None})
    loaded = load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    now = _identity(loaded, forget, retain, config)
    prepare_resumable(out, overwrite)
    file, folder = out / IDENTITY, out / UNLEARNED
    if file.is_file():
        check_same(json.loads(file.read_text("utf-8")), now, out)
    else:
        write_json_atomic(file, now)
    if (folder / "results.json").is_file():
        log.info("the unlearned model is there already")
        results: dict[str, Any] = json.loads((folder / "results.json").read_text("utf-8"))
        forget_checkpoint(folder)
    else:
        try:
            results = unlearn_rows(loaded, forget, retain, config, folder, examine=0, resume=True, stages=stages, **options)
        except StoppedError as stopped:
            fix, number = "the same command goes on from here", stopped.exit_code - 128
            raise StoppedError(stopped.problem, where=stopped.where, fix=fix, number=number) from stopped
    del loaded
    gc.collect()
    return results


def _identity(loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig) -> dict[str, str]:
    return {**fingerprint(config, forget, retain, loaded.model), "model": model_fingerprint(loaded)}
