"""`vgid evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vgid.commands.options import (
    BatchSize,
    Bench,
    ImageRoot,
    Json,
    Overwrite,
    Part,
    Protocol,
    Reference,
    Seed,
    TrustRemoteCode,
    Turns,
    TurnsName,
    check_used,
)
from vgid.commands.root import app
from vgid.commands.show import show
from vgid.errors import ConfigError
from vgid.progress import launch_count, launch_rank

Models = Mapping[str, tuple[str | None, Path | None]]


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Folder or hub id of the (unlearned) model.")],
    data: Annotated[list[str] | None, typer.Option(help="A split: JSONL or parquet file, or a folder of such files. Repeatable.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter for the model.")] = None,
    base: Annotated[str | None, typer.Option(help="The model before unlearning, to compare with.")] = None,
    reference: Reference = None,
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    benchmark: Bench = None,
    part: Part = None,
    protocol: Protocol = None,
    batch_size: BatchSize = 64,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Keep a benchmark's answers; they hold what is to be forgotten.")
    ] = False,
    utility: Annotated[
        list[str] | None,
        typer.Option(help="General utility: perception, perception-options, lm-eval:TASKS or lmms-eval:FAMILY:TASKS. Repeatable."),
    ] = None,
    utility_tasks: Annotated[
        Path | None, typer.Option(help="Folder with additional tasks for lm-eval or lmms-eval.", exists=True, file_okay=False)
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Questions of each task of lm-eval or lmms-eval, at most.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write results.json.", file_okay=False)] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask models questions and measure the answers: your own data, a benchmark to its published protocol, or general utility.

    Under a launcher, models that are asked own data are sharded over its processes, so they may be larger than one device.
    """
    models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (reference, None)}
    common = (out, seed, overwrite, as_json)
    check_used("--benchmark", benchmark, forget_part=part, protocol=protocol, keep_answers=keep_answers)
    check_used("--utility", utility, utility_tasks=utility_tasks, max_rows=max_rows)
    if (utility or benchmark is not None) and (turns != TurnsName.last or image_root is not None):
        raise ConfigError("--turns and --image-root say how own data is read", got="--benchmark or --utility", fix="leave them out")
    if (utility or benchmark is not None) and launch_count() > 1:
        raise ConfigError("benchmarks and utility suites run in one process", got=f"{launch_count()} processes", fix="start it alone")
    if utility:
        if benchmark is not None or data:
            raise ConfigError("--utility has its own questions", got="--data or --benchmark too", fix="run the two one after the other")
        _utility(utility, models, utility_tasks, max_rows, batch_size, *common)
    elif benchmark is not None:
        _benchmark(benchmark, data or [], part, protocol or [], models, batch_size, keep_answers, *common)
    elif data:
        _own_data([Path(each) for each in data], models, turns, image_root, *common)
    else:
        raise ConfigError("there is nothing to ask", fix="give --data, or --benchmark")


def _own_data(
    data: Sequence[Path],
    models: Models,
    turns: TurnsName,
    image_root: Path | None,
    out: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vgid.progress import Stages
    from vgid.report.table import results_table
    from vgid.results import evaluate_models

    first = launch_rank() == 0
    with Stages(quiet=as_json or not first) as stages:
        results = evaluate_models(
            models, data, turns=turns.value, image_root=image_root, seed=seed, out=out, overwrite=overwrite, stages=stages, shard=True
        )
    if first:
        show(results, as_json, [results_table(results)], out)


def _utility(
    suites: Sequence[str],
    models: Models,
    tasks_folder: Path | None,
    max_rows: int | None,
    batch_size: int,
    out: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vgid.progress import Stages
    from vgid.report.utility import utility_table
    from vgid.utility.suites import run_utility

    given = {name: (path, adapter) for name, (path, adapter) in models.items() if path}
    options: dict[str, Any] = {
        "tasks_folder": tasks_folder,
        "max_rows": max_rows,
        "seed": seed,
        "batch_size": batch_size,
        "overwrite": overwrite,
    }
    with Stages(quiet=as_json) as stages:
        results = run_utility(given, suites, out, stages=stages, **options)
    show(results, as_json, [utility_table(results)], out)


def _benchmark(
    benchmark: str,
    data: Sequence[str],
    part: str | None,
    protocol: Sequence[str],
    models: Models,
    batch_size: int,
    keep_answers: bool,
    out: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vgid.benchmarking.evaluate import run_benchmark
    from vgid.benchmarking.splits import open_benchmark, parse_protocol
    from vgid.progress import Stages
    from vgid.report.benchmark import benchmark_table, published_table

    if len(data) > 1:
        raise ConfigError("a benchmark lies in one place", expected="one --data", got=f"{len(data)}")
    opened = open_benchmark(benchmark, data[0] if data else None, part, parse_protocol(protocol))
    given = {name: (path, adapter) for name, (path, adapter) in models.items() if path}
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "overwrite": overwrite, "keep_answers": keep_answers}
    with Stages(quiet=as_json) as stages:
        results = run_benchmark(opened, given, out, stages=stages, **options)
    show(results, as_json, [benchmark_table(results), *published_table(results)], out)
