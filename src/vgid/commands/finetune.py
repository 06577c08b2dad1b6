"""`vgid finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vgid.commands.options import (
    Bench,
    Examined,
    Json,
    Out,
    Overwrite,
    Part,
    Recipe,
    Resume,
    RunImageRoot,
    RunSeed,
    RunTurns,
    Set,
    SkipBadRows,
    TrustRemoteCode,
    check_used,
    run_config,
    with_reading,
)
from vgid.commands.root import app
from vgid.commands.show import show
from vgid.errors import ConfigError
from vgid.progress import launch_rank

if TYPE_CHECKING:
    from vgid.config import RunConfig
    from vgid.data.example import Example

Weights = Literal["lora", "lora+projector", "all"]
WEIGHTS: dict[Weights, list[str]] = {
    "lora": ["adapter.whole_projector=false"],
    "lora+projector": ["adapter.whole_projector=true"],
    "all": ["adapter=null"],
}
"""What `--train` stands for, as settings."""
FORGET = "forget"
"""What `--without` names the benchmark's forget set by."""


@app.command()
def finetune(
    model: Annotated[str, typer.Option(help="Folder or hub id of the base, which knows none of the rows.")],
    out: Out,
    data: Annotated[
        list[str] | None, typer.Option(help="Rows to learn: JSONL, parquet or a folder; or the benchmark's folder or hub id. Repeatable.")
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(help="Rows to leave out, for a retain-only reference; of a benchmark, `forget` is its forget set."),
    ] = None,
    train: Annotated[Weights | None, typer.Option(help="What is trained; `lora` unless the recipe says otherwise.")] = None,
    benchmark: Bench = None,
    part: Part = None,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    max_rows: Examined = None,
    turns: RunTurns = None,
    image_root: RunImageRoot = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Preflight only: check everything, write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a base on rows (stage 1): the model that knows them or, --without some of them, the retain-only reference.

    Writes the adapter, the merged model, results.json and report.html. Exit code 0: done; 3: done, but the model does not know the rows.
    """
    from vgid.finetuning import finetune as run
    from vgid.outcome import EXIT_CODE
    from vgid.progress import Stages
    from vgid.report.table import results_table

    config = with_reading(finetune_config(recipe, [*(WEIGHTS[train] if train else []), *(settings or [])], seed), turns, image_root)
    asked = _recipes_benchmark(recipe) if not data or benchmark else None
    check_used("--benchmark", benchmark or asked, forget_part=part)
    rows: list[str] | list[Example] = list(data or [])
    left_out: str | list[Example] | None = without
    if benchmark is not None or asked:
        if turns is not None or image_root is not None:
            raise ConfigError("--turns and --image-root say how own data is read", got="a benchmark", fix="leave them out")
        rows, forget = _benchmark_rows(config, benchmark, asked, data, part, skip_bad_rows)
        left_out = forget if without == FORGET else without
    elif not rows:
        raise ConfigError("there is nothing to learn", fix="give --data, or a recipe that names a benchmark")
    if dry_run:
        _preflight(model, rows, left_out, config, skip_bad_rows, as_json)
        return
    first = launch_rank() == 0
    with Stages(quiet=as_json or not first) as stages:
        done = run(
            model,
            rows,
            config,
            without=left_out,
            out=out,
            max_rows=max_rows,
            skip_bad_rows=skip_bad_rows,
            resume=resume,
            overwrite=overwrite,
            stages=stages,
        )
    if first:
        show(done.results, as_json, [results_table(done.results)] if done.results["splits"] else [], out)
    if done.knows is False:
        raise typer.Exit(EXIT_CODE)


def _preflight(
    model: str, rows: list[str] | list[Example], left_out: str | list[Example] | None, config: RunConfig, skip_bad_rows: bool, as_json: bool
) -> None:
    from vgid.checks.preflight import as_json as to_json
    from vgid.checks.screen import screen
    from vgid.finetuning import preflight
    from vgid.progress import Stages

    with Stages(quiet=True) as stages:
        found = preflight(model, rows, config, without=left_out, skip_bad_rows=skip_bad_rows, stages=stages)
    show(to_json(found), as_json, [screen(found)])
    if found.errors:
        raise typer.Exit(2)


def finetune_config(recipe: str | None, settings: list[str], seed: int | None) -> RunConfig:
    """Resolve the configuration of a fine-tuning; of a recipe for unlearning, everything but its method holds.

    Args:
        recipe: `--recipe`.
        settings: `--set`, once for each setting.
        seed: `--seed`; None leaves it to the recipe.

    Returns:
        A configuration whose method fine-tunes.
    """
    from vgid.config import read_recipe
    from vgid.finetuning import FINE_TUNING

    method = (read_recipe(recipe).values if recipe is not None else {}).get("method", {})
    name = method.get("name") if isinstance(method, dict) else method
    chosen = any(setting.startswith(("method=", "method.name=")) for setting in settings)
    return run_config(recipe, None if name in FINE_TUNING or chosen else FINE_TUNING[0], settings, seed)


def _recipes_benchmark(recipe: str | None) -> dict[str, object] | None:
    from vgid.config import read_recipe

    return read_recipe(recipe).benchmark if recipe is not None else None


def _benchmark_rows(
    config: RunConfig,
    benchmark: str | None,
    named: dict[str, object] | None,
    data: list[str] | None,
    part: str | None,
    skip_bad_rows: bool,
) -> tuple[list[Example], list[Example]]:
    """All training rows of a benchmark, and those of its forget set."""
    from vgid.benchmarking.bench import all_training_rows, choose_benchmark, open_training

    if data and len(data) > 1:
        raise ConfigError("a benchmark lies in one place", expected="one --data", got=f"{len(data)}")
    choice = choose_benchmark(config, benchmark, {"data": data[0] if data else None, "forget": part}, {}, named).benchmark
    return all_training_rows(open_training(choice), skip_bad_rows=skip_bad_rows)
