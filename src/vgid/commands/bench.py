"""`vgid bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from vgid.commands.finetune import finetune_config
from vgid.commands.options import (
    AllowUnknown,
    BatchSize,
    Json,
    Method,
    Out,
    Overwrite,
    Part,
    Protocol,
    Recipe,
    Reference,
    RunSeed,
    Set,
    SkipBadRows,
    TrustRemoteCode,
    run_config,
)
from vgid.commands.root import app
from vgid.commands.show import show
from vgid.errors import ConfigError


@app.command()
def bench(
    model: Annotated[
        str,
        typer.Option(help="Folder or hub id of a model that has learned the benchmark's people, or with --from-base has not."),
    ],
    out: Out,
    benchmark: Annotated[str | None, typer.Argument(help="Such as mllmu or clear; a recipe may name it.")] = None,
    data: Annotated[str | None, typer.Option(help="The benchmark's folder or hub id; a recipe may name it.")] = None,
    train: Annotated[str | None, typer.Option(help="Where its rows for unlearning are, if elsewhere.")] = None,
    part: Part = None,
    reference: Reference = None,
    from_base: Annotated[
        bool, typer.Option("--from-base", help="First make the model that knows, and the reference, by fine-tuning --model.")
    ] = False,
    finetune_recipe: Annotated[str | None, typer.Option(help="Recipe of that fine-tuning; a recipe may name it.")] = None,
    finetune_settings: Annotated[
        list[str] | None, typer.Option("--finetune-set", help="Change one setting of that fine-tuning: a.b=c. Repeatable.")
    ] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Set = None,
    protocol: Protocol = None,
    seed: RunSeed = None,
    batch_size: BatchSize = 64,
    skip_bad_rows: SkipBadRows = False,
    allow_unknown: AllowUnknown = False,
    keep_answers: Annotated[bool, typer.Option("--keep-answers", help="Keep the answers; they hold what is to be forgotten.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Unlearn a benchmark's forget set, and ask the models before and after to its published protocol.

    Given again after it was stopped, it goes on.
    """
    from vgid.benchmarking.bench import choose_benchmark, run_bench
    from vgid.benchmarking.splits import parse_protocol
    from vgid.config import read_recipe
    from vgid.progress import Stages
    from vgid.report.benchmark import benchmark_table, published_table

    given = {"data": data, "train": train, "forget": part}
    read = read_recipe(recipe) if recipe is not None else None
    named = read.benchmark if read else None
    if not from_base and (finetune_recipe or finetune_settings):
        raise ConfigError("there is no fine-tuning", got="--finetune-recipe or --finetune-set", fix="add --from-base")
    config = choose_benchmark(run_config(recipe, method, settings, seed), benchmark, given, parse_protocol(protocol or []), named)
    own = finetune_recipe or (read.finetune if read else None)
    learning = finetune_config(own, finetune_settings or [], config.run.seed) if from_base else None
    with Stages(quiet=as_json) as stages:
        results = run_bench(
            model,
            config,
            out,
            reference=reference,
            from_base=learning,
            batch_size=batch_size,
            skip_bad_rows=skip_bad_rows,
            allow_unknown=allow_unknown,
            overwrite=overwrite,
            keep_answers=keep_answers,
            stages=stages,
        )
    show(results, as_json, [benchmark_table(results), *published_table(results)], out)
