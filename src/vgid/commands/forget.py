"""`vgid forget`, `vgid retrain` and `vgid purge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.audit import ProfileName
from vgid.commands.options import (
    AllowUnknown,
    Json,
    Method,
    Out,
    Overwrite,
    Recipe,
    Reference,
    RunImageRoot,
    RunSeed,
    RunTurns,
    Set,
    TrustRemoteCode,
    Without,
    kinds,
    run_config,
    with_reading,
)
from vgid.commands.root import app
from vgid.commands.show import plain, show
from vgid.run_folder import check_output


@app.command()
def forget(
    request: Annotated[Path, typer.Option(help="The request's folder: rows, and request.yaml if there is one.", file_okay=False)],
    out: Out,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model that must forget.")] = None,
    after: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run to start from; its deletions are audited again.", file_okay=False)
    ] = None,
    continued: Annotated[
        Path | None,
        typer.Option("--continue", help="Folder of a run of this request that did not pass: go on from its result.", file_okay=False),
    ] = None,
    earlier: Annotated[list[Path] | None, typer.Option(help="Folder of an earlier request, where it has moved. Repeatable.")] = None,
    retain: Annotated[Path | None, typer.Option(help="What must stay; by default neutral questions, answered by the model.")] = None,
    reference: Reference = None,
    policy: Annotated[Path | None, typer.Option(help="YAML file of the audit's thresholds; the package's own by default.")] = None,
    profile: Annotated[ProfileName, typer.Option(help="Effort of the audit: quick, or full with published budgets.")] = ProfileName.quick,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Rows of either set to ask and attack, at most.")] = None,
    key: Annotated[Path | None, typer.Option(help="Secret key of the record, a file of yours; by default OUT.key, which is made.")] = None,
    without: Without = None,
    no_enrich: Annotated[bool, typer.Option("--no-enrich", help="Make no rows in other forms from those of the request.")] = False,
    method: Method = None,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    turns: RunTurns = None,
    image_root: RunImageRoot = None,
    allow_unknown: AllowUnknown = False,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show a row on the screen, and errors' own words.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan, memory and time; write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Honour a deletion request: unlearn, audit, export, and write a record. The same command continues a run that was stopped.

    Exit code 0: done, and the audit passed; 3: done, but not forgotten, or the audit did not pass; 1: a step failed; 2: bad input.
    """
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.enrichment import KINDS
    from vgid.progress import Stages
    from vgid.requests.estimate import estimate_run
    from vgid.requests.forget import forget as run_forget
    from vgid.requests.forget import inputs_of
    from vgid.requests.options import ForgetOptions
    from vgid.requests.screen import estimate_panel, result_panel

    options = ForgetOptions(
        model=model,
        request=request,
        out=out,
        config=with_reading(run_config(recipe, method, settings, seed), turns, image_root),
        retain=retain,
        reference=reference,
        policy=policy,
        profile=profile.value,
        max_rows=max_rows,
        after=after,
        continued=continued,
        earlier=tuple(earlier or ()),
        allow_unknown=allow_unknown,
        key=key,
        overwrite=overwrite,
        without=tuple(KINDS) if no_enrich else kinds(without),
        show_forgotten=show_forgotten,
    )
    if dry_run:
        check_output(out, overwrite, resume=True, inputs=inputs_of(options))
        with Stages(quiet=True) as stages:
            estimate = estimate_run(options, stages=stages)
        show(estimate.as_json(), as_json, [estimate_panel(estimate)])
        if estimate.preflight.errors:
            raise typer.Exit(2)
        return
    with Stages(quiet=as_json) as stages:
        result = run_forget(options, stages=stages)
    show(result.record, as_json, [result_panel(result, out)])
    if not result.passed:
        raise typer.Exit(EXIT_CODE)


@app.command()
def purge(
    run: Annotated[Path, typer.Argument(help="The folder of any vgid run.", file_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what a run needed while it lasted (caches, answers, checkpoints, adapters of requests), and list what remains."""
    from vgid.requests.purge import purge as run_purge

    result = run_purge(run, dry_run=dry_run)
    lines = [
        f"{name:<12} {plain(path)}{plain(f'  {what}') if what else ''}"
        for name, items in (("would remove" if dry_run else "removed", result.removed), ("remains", result.remains))
        for path, what in items
    ]
    show(result.as_json(), as_json, [*lines, "Copies that a file system, a backup or a tracker has kept are not removed."])


@app.command()
def retrain(
    model: Annotated[str, typer.Option(help="Folder or hub id of the base, from before the person was learned.")],
    request: Annotated[Path, typer.Option(help="The request's folder: rows, and request.yaml if there is one.", file_okay=False)],
    retain: Annotated[Path, typer.Option(help="The training rows, without the person's.")],
    out: Out,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Take the person's rows out of the training rows; without it they are refused.")
    ] = False,
    recipe: Recipe = None,
    settings: Set = None,
    seed: RunSeed = None,
    turns: RunTurns = None,
    image_root: RunImageRoot = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Rows of either set to ask before and after, at most.")] = None,
    key: Annotated[Path | None, typer.Option(help="Secret key of the record, a file of yours; by default OUT.key, which is made.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Honour a deletion request exactly: train the base again without the person's rows, and write a record.

    The same command continues a run that was stopped. Exit code 0: done; 3: done, but the model did not learn its rows, or answers the
    request's; 1: a step failed; 2: bad input.
    """
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.commands.finetune import finetune_config
    from vgid.progress import Stages
    from vgid.requests.retrain import RetrainOptions
    from vgid.requests.retrain import retrain as run_retrain
    from vgid.requests.screen import exact_panel

    config = with_reading(finetune_config(recipe, settings or [], seed), turns, image_root)
    options = RetrainOptions(model, request, retain, out, config, leave_out, max_rows, key, overwrite)
    with Stages(quiet=as_json) as stages:
        result = run_retrain(options, stages=stages)
    show(result.record, as_json, [exact_panel(result, out)])
    if not result.passed:
        raise typer.Exit(EXIT_CODE)
