"""`vgid forget` and `vgid purge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgid.artifacts import check_output
from vgid.commands.audit import ProfileName
from vgid.commands.options import AllowUnknown, Json, Method, Out, Overwrite, Recipe, Reference, RunSeed, Set, run_config
from vgid.commands.root import app
from vgid.commands.show import plain, show
from vgid.errors import ConfigError
from vgid.progress import launch_rank


@app.command()
def forget(
    request: Annotated[Path, typer.Option(help="The request's folder: rows, and request.yaml if there is one.", file_okay=False)],
    out: Out,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model that must forget.")] = None,
    after: Annotated[
        Path | None, typer.Option(help="Start from an earlier run's result, and keep what it deleted.", file_okay=False)
    ] = None,
    earlier: Annotated[list[Path] | None, typer.Option(help="Folder of an earlier request, where it has moved. Repeatable.")] = None,
    retain: Annotated[Path | None, typer.Option(help="What must stay; by default neutral questions, answered by the model.")] = None,
    reference: Reference = None,
    policy: Annotated[Path | None, typer.Option(help="YAML file of the audit's thresholds; the package's own by default.")] = None,
    profile: Annotated[ProfileName, typer.Option(help="Of the audit: quick, or full: published budgets.")] = ProfileName.quick,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Rows of either set to ask and attack, at most.")] = None,
    key: Annotated[Path | None, typer.Option(help="Secret key of the record; OUT.key by default, made where there is none.")] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    allow_unknown: AllowUnknown = False,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show a row on the screen, and errors' own words.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan, memory and time; write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Honour a deletion request: unlearn, audit, export, and write a record. The same command goes on where it was stopped.

    Exit code 0: done, and the audit passed; 3: done, but it did not; 1: a step failed; 2: bad input.
    """
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.progress import Stages
    from vgid.requests.command import forget_command
    from vgid.requests.estimate import plan
    from vgid.requests.resolved import Order
    from vgid.requests.screen import plan_panel, summary

    if launch_rank() > 0:
        raise ConfigError("a request is honoured by one process", fix="run the steps by themselves under a launcher; see docs/forget.md")
    order = Order(
        model=model,
        request=request,
        out=out,
        config=run_config(recipe, method, settings, seed),
        retain=retain,
        reference=reference,
        policy=policy,
        profile=profile.value,
        max_rows=max_rows,
        after=after,
        earlier=tuple(earlier or ()),
        allow_unknown=allow_unknown,
    )
    if dry_run:
        check_output(out, overwrite, resume=True)
        with Stages(quiet=True) as stages:
            found = plan(order, stages, show_forgotten)
        show(found.as_json(), as_json, [plan_panel(found)])
        if found.preflight.errors:
            raise typer.Exit(2)
        return
    with Stages(quiet=as_json) as stages:
        done = forget_command(order, key=key, overwrite=overwrite, show_forgotten=show_forgotten, stages=stages)
    show(done.record, as_json, [summary(done.record, done.sha256, out, done.key)])
    if done.record["conclusion"]["status"] != "pass" or any(
        each["status"] in ("fail", "inconclusive") for each in (done.record["sequence"] or {"earlier": ()})["earlier"]
    ):
        raise typer.Exit(EXIT_CODE)


@app.command()
def purge(
    run: Annotated[Path, typer.Argument(help="The folder of any vgid run.", file_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what a run needed while it lasted (caches, answers, checkpoints, adapters of requests), and list what remains."""
    from vgid.requests.purge import purge as purge_run

    done = purge_run(run, dry_run=dry_run)
    lines = [
        f"{name:<8} {plain(path)}{plain(f'  {what}') if what else ''}"
        for name, items in (("would go" if dry_run else "removed", done.removed), ("remains", done.remains))
        for path, what in items
    ]
    show(done.as_json(), as_json, [*lines, "What a file system, a backup or a tracker has kept of removed files is not reached."])
