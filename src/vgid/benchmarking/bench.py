"""`vgid bench` as a function: unlearn a benchmark's forget set, then ask the models before and after by the benchmark's protocol."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from vgid import processes
from vgid.artifacts import write_json_atomic
from vgid.benchmarking.asking import check_items
from vgid.benchmarking.evaluate import FINETUNED, IDENTITY, ask_models, check_reference, check_resumable, is_unfinished, write_results
from vgid.benchmarking.splits import open_benchmark, read_split
from vgid.benchmarking.store import model_fingerprint
from vgid.benchmarks.base import Benchmark, is_forget_split
from vgid.config import RunConfig, explain
from vgid.data.example import Example
from vgid.data.sources import check_disjoint
from vgid.errors import ConfigError, StoppedError
from vgid.finetuning import finetune
from vgid.model_card import CardFigure, write_card
from vgid.models.loading import check_model_path, load_model
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.run_folder import discard, noting, output_folder
from vgid.settings import Settings
from vgid.training.fingerprint import check_same, fingerprint
from vgid.training.trackers import check_trackers
from vgid.unlearning import EXPORTS, forget_checkpoint, left_to_go_on, retain_needed, unlearn

UNLEARNED = "unlearned"
"""Subfolder of the output folder for the run that unlearns."""
REFERENCE = "reference"
"""Subfolder for the model that learns all but the forget set, where the run makes it."""

log = logging.getLogger("vgid")


class BenchmarkSources(NamedTuple):
    """A benchmark, opened over its two sources of data.

    Attributes:
        evaluation: over the data with the questions.
        training: over the data with the rows for unlearning; often the same object.
    """

    evaluation: Benchmark
    training: Benchmark


class BenchmarkChoice(Settings):
    """The benchmark that `vgid bench` runs.

    Attributes:
        name: name of the benchmark.
        forget: label of its forget set; null for its first.
        data: folder or hub id, `owner/name@revision`; null where the benchmark makes its data, or the command line names them.
        train: where the rows for unlearning are, if they are elsewhere.
        protocol: settings that deviate from the published ones, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    name: str
    forget: str | None = None
    data: str | None = None
    train: str | None = None
    protocol: dict[str, Any] = Field(default_factory=dict)


class BenchConfig(Settings):
    """A benchmark, and the run that unlearns its forget set."""

    benchmark: BenchmarkChoice
    run: RunConfig


def choose_benchmark(
    run: RunConfig,
    name: str | None,
    given: Mapping[str, str | None],
    protocol: Mapping[str, object],
    recipe: Mapping[str, Any] | None = None,
) -> BenchConfig:
    """Combine what a recipe and the command line say about the benchmark; the command line comes first.

    Args:
        run: configuration of the run that unlearns.
        name: name of the benchmark on the command line.
        given: `data`, `train` and `forget` on the command line; None where they are not given. `data` stands for both places that a recipe
            names, unless `train` is given too.
        protocol: settings that deviate from the published ones, by name.
        recipe: the recipe's `benchmark:` section.

    Returns:
        The benchmark and the run.

    Raises:
        ConfigError: neither names a benchmark, the two name different ones, or the recipe's section is not valid.
    """
    named = (recipe or {}).get("name")
    if name is None and named is None:
        raise ConfigError(
            "there is no benchmark to run", expected="a benchmark's name, or a recipe that names one", fix="see docs/benchmarks.md"
        )
    if name is not None and named is not None and name != named:
        raise ConfigError("the recipe is for another benchmark", expected=str(named), got=name, fix="leave the name or the recipe out")
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "data" in changes:
        changes = {"train": None, **changes}
    start = {"name": name, **(recipe or {})}
    try:
        choice = BenchmarkChoice(**{**start, **changes, "protocol": {**(start.get("protocol") or {}), **protocol}})
    except ValidationError as error:
        problems = explain(error, BenchmarkChoice, "benchmark.")
        raise ConfigError("the recipe's benchmark is not valid", got="\n  ".join(["", *problems])) from error
    return BenchConfig(benchmark=choice, run=run)


def open_sources(choice: BenchmarkChoice) -> BenchmarkSources:
    """Open a benchmark over its data for evaluation and its data for unlearning.

    Raises:
        ConfigError: there is no such benchmark or setting.
        DataError: the data are not there.
    """
    evaluation = open_benchmark(choice.name, choice.data, choice.forget, choice.protocol)
    return BenchmarkSources(evaluation, evaluation if choice.train is None else open_training(choice))


def open_training(choice: BenchmarkChoice) -> Benchmark:
    """Open a benchmark over its data for unlearning alone; those with the questions are not fetched, where they are elsewhere.

    Raises:
        ConfigError: there is no such benchmark or setting.
        DataError: the data are not there.
    """
    place = choice.data if choice.train is None else choice.train
    return open_benchmark(choice.name, place, choice.forget, choice.protocol)


def run_bench(
    model: str,
    config: BenchConfig,
    out: Path,
    *,
    reference: str | None = None,
    from_base: RunConfig | None = None,
    batch_size: int = 64,
    skip_bad_rows: bool = False,
    allow_unknown: bool = False,
    overwrite: bool = False,
    keep_answers: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Unlearn, then ask the model before, after, and the reference; called again after it was stopped, go on where it was.

    Args:
        model: folder or hub id of a model that has learned the benchmark's people; with `from_base`, of one that has not.
        config: the benchmark, and the run that unlearns.
        out: folder for `results.json`, `report.html` and the unlearned model.
        reference: folder or hub id of a model that never saw the forget set.
        from_base: settings by which the model first learns the benchmark's people, and a reference, if none is given, all but the forget
            set.
        batch_size: questions that are asked at once.
        skip_bad_rows: leave bad rows out, with a warning for each, in place of an error.
        allow_unknown: go on although the model does not know the forget set.
        overwrite: replace what an earlier run left in `out`.
        keep_answers: keep the answers in `out`; they hold what must be forgotten.
        stages: shows and times what is done.

    Returns:
        The results object as it is written to `results.json` (schema `vgid.benchmark/1`), with `unlearning`.

    Raises:
        ConfigError: there is no such benchmark, the method leaves no checkpoint, there are several processes, or a reference is needed and
            missing.
        DataError: the data are not there, or have another layout.
        OutputError: the folder holds results already, its unfinished run was another one, or it cannot be written.
        RunError: unlearning failed.
        StoppedError: a signal asked the run to stop; the same call goes on.
    """
    run = config.run
    _check_method(run)
    check_trackers(run.training.report_to, out)
    sources = open_sources(config.benchmark)
    check_reference(sources.evaluation, reference is not None or from_base is not None)
    for each in (model, *([reference] if reference is not None else [])):
        check_model_path(each)
    check_resumable(out, overwrite, [model, reference, *sources.evaluation.inputs, *sources.training.inputs])
    with stages("Reading the data", "read"):
        total, data = check_items(sources.evaluation)
        forget, retain = read_training_rows(sources.training, run, skip_bad_rows)
    given = model
    if from_base is not None:
        model, reference = str(out / FINETUNED / "merged"), reference or str(out / REFERENCE / "merged")
    runs = [out / name for name in (FINETUNED, REFERENCE, UNLEARNED)]
    models: dict[str, tuple[str, Path | None]] = {"base": (model, None), "unlearned": (str(out / UNLEARNED / "merged"), None)}
    models |= {"retrained": (reference, None)} if reference is not None else {}
    with output_folder(out, keep=not overwrite and is_unfinished(out), goes_on=lambda: any(map(left_to_go_on, runs))):
        if from_base is not None:
            own = reference == str(out / REFERENCE / "merged")
            learning = _learn(given, sources.training, from_base, out, stages, make_reference=own, skip_bad_rows=skip_bad_rows)
        unlearning = _unlearn(model, forget, retain, run, out, stages, allow_unknown=allow_unknown)
        results = ask_models(sources.evaluation, models, out, total=total, data=data, seed=run.seed, batch_size=batch_size, stages=stages)
        results["notes"] += training_notes(forget, sources.evaluation)
        results["unlearning"] = {
            **{name: unlearning[name] for name in ("method", "config", "training", "preflight")},
            "curves": unlearning.get("curves") or {},
            "forget_rows": len(forget),
            "retain_rows": len(retain),
            **sources.training.origin(),
        }
        if from_base is not None:
            results["finetuning"] = learning
        write_results(results, out, keep_answers)
        rows, figures = {"forget": len(forget), "retain": len(retain)}, _card_figures(results["figures"])
        with noting(out / UNLEARNED):  # the run inside this one wrote the cards before
            for export in (out / UNLEARNED / name for name in EXPORTS):
                if export.is_dir():
                    write_card(export, given, run.method.name, figures, rows=rows, fine_tuned=from_base is not None)
        discard(out / IDENTITY)
    return results


def _card_figures(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[CardFigure]:
    """The benchmark's figures, by split, task and metric."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    counts: dict[tuple[str, str], int] = {}
    for name, measured in figures.items():
        for each in measured:
            if each["value"] is not None:
                key = f"{each['split']}, {each['task']}", each["metric"]
                values.setdefault(key, {})[name] = each["value"]
                counts[key] = max(counts.get(key, 0), each["n"])
    return [CardFigure(*key, found, counts[key]) for key, found in values.items()]


def training_notes(forget: Sequence[Example], evaluation: Benchmark) -> list[str]:
    """Return what a reader of the results must know about the rows that were unlearned, in sentences."""
    by_name = any(not item.example.images for item in evaluation.items() if is_forget_split(item.split))
    if by_name and all(row.images for row in forget):
        return ["Every row to forget came with a picture, so nothing was trained on what the model says by name alone: expect it to stay."]
    return []


def read_training_rows(benchmark: Benchmark, config: RunConfig, skip_bad_rows: bool) -> tuple[list[Example], list[Example]]:
    """Read the rows for unlearning.

    Args:
        benchmark: the benchmark over the data with the rows for unlearning.
        config: configuration of the run that unlearns, which says how many retain rows it can use.
        skip_bad_rows: leave bad rows out, with a warning for each, in place of an error.

    Returns:
        All rows to forget, and as many rows to retain as the run can use, drawn by its seed.

    Raises:
        DataError: rows are bad, there are none, or one is in both sets.
    """
    first, second = benchmark.training_splits
    forget = read_split(benchmark, first, skip_bad_rows=skip_bad_rows)
    needed = retain_needed(config, len(forget))
    retain = read_split(benchmark, second, skip_bad_rows=skip_bad_rows, at_most=needed, seed=config.seed) if needed else []
    check_disjoint(forget, retain)
    return forget, retain


def all_training_rows(benchmark: Benchmark, *, skip_bad_rows: bool = False) -> tuple[list[Example], list[Example]]:
    """Read what a model must be trained on to know a benchmark's people.

    Args:
        benchmark: the benchmark over the data with the rows for unlearning.
        skip_bad_rows: leave bad rows out, with a warning for each, in place of an error.

    Returns:
        All rows, and those to forget among them.

    Raises:
        DataError: rows are bad, there are none, or one is in both sets.
    """
    forget, retain = (read_split(benchmark, split, skip_bad_rows=skip_bad_rows) for split in benchmark.training_splits)
    check_disjoint(forget, retain)
    return [*forget, *retain], forget


def _check_method(config: RunConfig) -> None:
    method = config.build_method()
    if method.kind == "inference":
        raise ConfigError(
            f"the method {config.method.name} changes the question and not the model, so it leaves no unlearned checkpoint to ask",
            expected="a method that changes weights",
            fix="compare it by `vgid compare`, which asks through the method",
        )
    if processes.count() > 1:
        raise ConfigError(
            "a benchmark runs in one process",
            got=f"{processes.count()} processes",
            fix="use `vgid unlearn` under the launcher, then `vgid evaluate --benchmark` without it",
        )


def _learn(
    base: str, benchmark: Benchmark, config: RunConfig, out: Path, stages: Stages, *, make_reference: bool, skip_bad_rows: bool
) -> dict[str, Any]:
    """Stage 1: the model that knows everybody, and the reference that never sees the forget set, both from the same base."""
    rows, forget = all_training_rows(benchmark, skip_bad_rows=skip_bad_rows)
    learned: dict[str, Any] = {"base": base}
    for name in (FINETUNED, REFERENCE) if make_reference else (FINETUNED,):
        with _goes_on():
            done = finetune(
                base, rows, config, without=forget if name == REFERENCE else None, out=out / name, max_rows=0, resume=True, stages=stages
            )
        learned[name] = {key: done.results[key] for key in ("config", "training", "rows_trained", "curves")}
        del done
        gc.collect()
    return learned


@contextmanager
def _goes_on() -> Iterator[None]:
    """`vgid bench` has no --resume: after a stop, the same command goes on."""
    try:
        yield
    except StoppedError as stopped:
        fix, number = "the same command goes on from here", stopped.exit_code - 128
        raise StoppedError(stopped.problem, where=stopped.where, fix=fix, number=number) from stopped


def _unlearn(
    model: str,
    forget: list[Example],
    retain: list[Example],
    config: RunConfig,
    out: Path,
    stages: Stages,
    **options: Any,
) -> dict[str, Any]:
    """Unlearn into the output folder, or reuse the results of an earlier run of the same there."""
    loaded = load_model(model, quantise=config.adapter.quantise if config.adapter else None)
    identity = {**fingerprint(config, forget, retain, loaded.model), "model": model_fingerprint(loaded)}
    file, folder = out / IDENTITY, out / UNLEARNED
    if file.is_file():
        check_same(read_json(file), identity, out)
    else:
        write_json_atomic(file, identity)
    if (folder / "results.json").is_file():
        log.info("the unlearned model is there already")
        results = read_json(folder / "results.json")
        forget_checkpoint(folder)
    else:
        with _goes_on():
            results = unlearn(loaded, forget, retain, config, out=folder, max_rows=0, resume=True, stages=stages, **options).results
    del loaded
    gc.collect()
    return results
