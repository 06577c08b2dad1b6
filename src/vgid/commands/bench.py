"""`vgid bench`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vgid.commands.options import AllowUnknown, Json, Method, Out, Overwrite, Part, Recipe, Sample, Settings, run_config
from vgid.commands.root import app
from vgid.commands.show import show_files, terminal


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that has learned the benchmark's people.")],
    out: Out,
    benchmark: Annotated[str | None, typer.Argument(help="Such as mllmu or clear; a recipe may name it.")] = None,
    data: Annotated[str | None, typer.Option(help="The benchmark's folder or hub id; a recipe may name it.")] = None,
    train: Annotated[str | None, typer.Option(help="Where its rows for unlearning are, if elsewhere.")] = None,
    part: Part = None,
    reference: Annotated[
        str | None, typer.Option("--reference", "--retrained", help="A model that never saw the forget set, to compare with.")
    ] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Settings = None,
    protocol: Annotated[list[str] | None, typer.Option("--protocol", help="Deviate from the published protocol: a=b.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions that are asked at once.")] = 64,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    allow_unknown: AllowUnknown = False,
    sample: Sample = 32,
    keep_answers: Annotated[bool, typer.Option("--keep-answers", help="Keep the answers; they hold what is to be forgotten.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Unlearn a benchmark's forget set by a recipe, and ask the models before and after to its published protocol.

    Given again after it was stopped, it goes on.
    """
    from vgid.benchmarking.bench import bench_command, choose
    from vgid.benchmarking.splits import read_settings
    from vgid.progress import Stages
    from vgid.report.benchmark import benchmark_table, published_table

    given = {"data": data, "train": train, "forget": part}
    config = choose(run_config(method, recipe, settings, None, seed), benchmark, given, read_settings(protocol or []))
    with Stages(quiet=as_json) as stages:
        results = bench_command(
            model,
            config,
            out,
            reference=reference,
            batch_size=batch_size,
            skip_bad_rows=skip_bad_rows,
            allow_unknown=allow_unknown,
            sample=sample,
            overwrite=overwrite,
            keep_answers=keep_answers,
            stages=stages,
        )
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = terminal()
    console.print(benchmark_table(results))
    for table in published_table(results):
        console.print(table)
    show_files(console, out)
