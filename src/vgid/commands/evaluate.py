"""`vgid evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vgid.artifacts import check_output
from vgid.commands.options import Bench, Json, Overwrite, Part, Seed
from vgid.commands.root import app
from vgid.commands.show import show, show_files, terminal
from vgid.errors import ConfigError


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Folder or hub id of the (unlearned) model.")],
    data: Annotated[list[str] | None, typer.Option(help="A split: JSONL or parquet file, or a folder of such files. Repeatable.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter for the model.")] = None,
    base: Annotated[str | None, typer.Option(help="The model before unlearning, to compare with.")] = None,
    retrained: Annotated[
        str | None, typer.Option("--retrained", "--reference", help="A model that never saw the forget set, to compare with.")
    ] = None,
    benchmark: Bench = None,
    part: Part = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Deviate from a benchmark's published protocol: a=b.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions of a benchmark that are asked at once.")] = 64,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Keep a benchmark's answers; they hold what is to be forgotten.")
    ] = False,
    utility: Annotated[
        list[str] | None,
        typer.Option(help="General utility: perception, perception-options, lm-eval:TASKS or lmms-eval:FAMILY:TASKS. Repeatable."),
    ] = None,
    utility_tasks: Annotated[
        Path | None, typer.Option(help="Folder with tasks of your own for lm-eval.", exists=True, file_okay=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions of each task of lm-eval or lmms-eval.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write results.json.", file_okay=False)] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Ask models questions and measure the answers: your own data, a benchmark to its published protocol, or general utility."""
    from vgid.progress import Stages
    from vgid.unlearning import evaluate_command

    if utility:
        if benchmark is not None or data:
            raise ConfigError("--utility has questions of its own", got="--data or --benchmark too", fix="run the two one after the other")
        models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (retrained, None)}
        _evaluate_utility(utility, models, out, utility_tasks, limit, seed, batch_size, overwrite, as_json)
        return
    if benchmark is not None:
        models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (retrained, None)}
        _evaluate_benchmark(benchmark, data or [], part, settings or [], models, out, seed, batch_size, overwrite, keep_answers, as_json)
        return
    if not data:
        raise ConfigError("there is nothing to ask", fix="give --data, or --benchmark")
    if out is not None:
        check_output(out, overwrite)
    models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (retrained, None)}
    with Stages(quiet=as_json) as stages:
        paths = [Path(each) for each in data]
        results = evaluate_command({name: pair for name, pair in models.items() if pair[0]}, paths, seed, out, stages)
    show(results, as_json, out)


def _evaluate_utility(
    suites: Sequence[str],
    models: Mapping[str, tuple[str | None, Path | None]],
    out: Path | None,
    tasks_folder: Path | None,
    limit: int | None,
    seed: int,
    batch_size: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from vgid.progress import Stages
    from vgid.report.utility import utility_table
    from vgid.utility.command import utility_command

    given = {name: (path, adapter) for name, (path, adapter) in models.items() if path}
    with Stages(quiet=as_json) as stages:
        results = utility_command(
            given,
            suites,
            out,
            tasks_folder=tasks_folder,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
            overwrite=overwrite,
            stages=stages,
        )
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = terminal()
    console.print(utility_table(results))
    show_files(console, out)


def _evaluate_benchmark(
    benchmark: str,
    data: Sequence[str],
    part: str | None,
    settings: Sequence[str],
    models: Mapping[str, tuple[str | None, Path | None]],
    out: Path | None,
    seed: int,
    batch_size: int,
    overwrite: bool,
    keep_answers: bool,
    as_json: bool,
) -> None:
    from vgid.benchmarking.command import benchmark_command
    from vgid.benchmarking.splits import open_benchmark, read_settings
    from vgid.progress import Stages
    from vgid.report.benchmark import benchmark_table, published_table

    if len(data) > 1:
        raise ConfigError("a benchmark lies in one place", expected="one --data", got=f"{len(data)}")
    opened = open_benchmark(benchmark, data[0] if data else None, part, read_settings(settings))
    given = {name: (path, adapter) for name, (path, adapter) in models.items() if path}
    with Stages(quiet=as_json) as stages:
        results = benchmark_command(
            opened, given, out, seed=seed, batch_size=batch_size, overwrite=overwrite, keep_answers=keep_answers, stages=stages
        )
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = terminal()
    console.print(benchmark_table(results))
    for table in published_table(results):
        console.print(table)
    show_files(console, out)
