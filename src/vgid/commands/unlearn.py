"""`vgid unlearn` and what comes before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vgid.artifacts import check_output
from vgid.commands.options import AllowUnknown, Json, Method, Out, Overwrite, Recipe, Sample, Settings, run_config
from vgid.commands.root import app
from vgid.commands.show import show, terminal
from vgid.errors import ConfigError
from vgid.progress import launched_as


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget.")],
    forget: Annotated[Path, typer.Option(help="What to forget: JSONL, parquet or a folder.")],
    out: Out,
    retain: Annotated[Path | None, typer.Option(help="What must stay: JSONL, parquet or a folder.")] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Settings = None,
    retain_ratio: Annotated[float | None, typer.Option(help="Retain rows per forget row in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    examine: Annotated[int, typer.Option(min=0, help="Rows of each set to examine before and after; 0 for none.")] = 200,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --out, if there is one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Preflight only: check everything, write nothing.")] = False,
    allow_unknown: AllowUnknown = False,
    sample: Sample = 32,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a model forget, after a preflight; writes the adapter, the merged model and results.json."""
    if dry_run:
        preflight(model, forget, retain, method, recipe, settings, retain_ratio, seed, sample, allow_unknown, False, skip_bad_rows, as_json)
        return
    from vgid.progress import Stages
    from vgid.unlearning import unlearn_command

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", fix="give one of them")
    config = run_config(method, recipe, settings, retain_ratio, seed)
    first = launched_as() == 0
    if first:
        check_output(out, overwrite, resume)
    options: dict[str, Any] = {"examine": examine, "skip_bad_rows": skip_bad_rows, "allow_unknown": allow_unknown, "sample": sample}
    with Stages(quiet=as_json or not first) as stages:
        results = unlearn_command(model, forget, retain, config, out, resume=resume, stages=stages, **options)
    if first:
        show(results, as_json, out)


@app.command()
def preflight(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget.")],
    forget: Annotated[Path, typer.Option(help="What to forget: JSONL, parquet or a folder.")],
    retain: Annotated[Path | None, typer.Option(help="What must stay: JSONL, parquet or a folder.")] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Settings = None,
    retain_ratio: Annotated[float | None, typer.Option(help="Retain rows per forget row in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    sample: Sample = 32,
    allow_unknown: AllowUnknown = False,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show a forget row's text in the label sample.")] = False,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    as_json: Json = False,
) -> None:
    """Look at model, data and settings before a run: what fits, what is trained, and whether there is anything to forget."""
    from vgid.checks import as_json as to_json
    from vgid.checks.screen import screen
    from vgid.progress import Stages
    from vgid.unlearning import preflight_command

    config = run_config(method, recipe, settings, retain_ratio, seed)
    options: dict[str, Any] = {
        "skip_bad_rows": skip_bad_rows,
        "allow_unknown": allow_unknown,
        "show_forgotten": show_forgotten,
        "sample": sample,
    }
    with Stages(quiet=True) as stages:
        found = preflight_command(model, forget, retain, config, stages=stages, **options)
    if as_json:
        print(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    else:
        terminal(110).print(screen(found))
    if found.errors:
        raise typer.Exit(2)
