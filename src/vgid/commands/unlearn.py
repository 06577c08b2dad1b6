"""`vgid unlearn` and `vgid preflight`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgid.commands.options import (
    AllowUnknown,
    Examined,
    Json,
    Method,
    Out,
    Overwrite,
    Recipe,
    Resume,
    RunImageRoot,
    RunSeed,
    RunTurns,
    Set,
    SkipBadRows,
    TrustRemoteCode,
    run_config,
    with_reading,
)
from vgid.commands.root import app
from vgid.commands.show import show
from vgid.progress import launch_rank

if TYPE_CHECKING:
    from vgid.config import RunConfig

Model = Annotated[str, typer.Option(help="Folder or hub id of the model that must forget.")]
Forget = Annotated[Path, typer.Option(help="What to forget: JSONL, parquet or a folder.")]
Retain = Annotated[Path | None, typer.Option(help="What must stay: JSONL, parquet or a folder.")]


@app.command()
def unlearn(
    model: Model,
    forget: Forget,
    out: Out,
    retain: Retain = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Rows about the same facts that are not trained on: when to stop, and whether it forgot.")
    ] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    max_rows: Examined = None,
    turns: RunTurns = None,
    image_root: RunImageRoot = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Preflight only: check everything, write nothing.")] = False,
    allow_unknown: AllowUnknown = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Make a model forget, after a preflight; writes the adapter, the merged model, results.json and report.html.

    Exit code 0: done; 3: done, but the forget rows are still answered, or too much else is lost; 1: the run failed; 2: bad input.
    """
    config = with_reading(run_config(recipe, method, settings, seed), turns, image_root)
    if dry_run:
        _preflight(model, forget, retain, config, max_rows, skip_bad_rows, allow_unknown, False, as_json)
        return
    from vgid.outcome import EXIT_CODE, FAILED
    from vgid.progress import Stages
    from vgid.report.table import results_table
    from vgid.unlearning import unlearn as run

    first = launch_rank() == 0
    with Stages(quiet=as_json or not first) as stages:
        done = run(
            model,
            forget,
            retain,
            config,
            held_out=held_out,
            out=out,
            max_rows=max_rows,
            skip_bad_rows=skip_bad_rows,
            allow_unknown=allow_unknown,
            resume=resume,
            overwrite=overwrite,
            stages=stages,
        )
    if first:
        shown = [results_table(done.results)] if done.results["splits"] else []
        show(done.results, as_json, [*shown, str(done.outcome)], out)
    if done.outcome.status in FAILED:
        raise typer.Exit(EXIT_CODE)


@app.command()
def preflight(
    model: Model,
    forget: Forget,
    retain: Retain = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Forget rows to ask the model and the teacher, at most (32).", show_default=False)
    ] = None,
    allow_unknown: AllowUnknown = False,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show a forget row's text in the label sample.")] = False,
    turns: RunTurns = None,
    image_root: RunImageRoot = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Look at model, data and settings before a run: what fits, what is trained, and whether there is anything to forget."""
    config = with_reading(run_config(recipe, method, settings, seed), turns, image_root)
    _preflight(model, forget, retain, config, max_rows, skip_bad_rows, allow_unknown, show_forgotten, as_json)


def _preflight(
    model: str,
    forget: Path,
    retain: Path | None,
    config: RunConfig,
    max_rows: int | None,
    skip_bad_rows: bool,
    allow_unknown: bool,
    show_forgotten: bool,
    as_json: bool,
) -> None:
    from vgid.checks.preflight import as_json as to_json
    from vgid.checks.screen import screen
    from vgid.progress import Stages
    from vgid.unlearning import preflight as run

    with Stages(quiet=True) as stages:
        found = run(
            model,
            forget,
            retain,
            config,
            max_rows=max_rows,
            skip_bad_rows=skip_bad_rows,
            allow_unknown=allow_unknown,
            show_forgotten=show_forgotten,
            stages=stages,
        )
    if launch_rank() == 0:
        show(to_json(found), as_json, [screen(found)])
    if found.errors:
        raise typer.Exit(2)
