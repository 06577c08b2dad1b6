"""`vgid audit`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import BatchSize, ImageRoot, Json, Overwrite, Reference, Seed, Set, TrustRemoteCode, Turns, TurnsName, check_used
from vgid.commands.root import app
from vgid.commands.show import show


class ProfileName(StrEnum):
    """How much work an audit is."""

    quick = "quick"
    full = "full"


@app.command()
def audit(
    model: Annotated[str, typer.Option(help="Folder or hub id of the unlearned model.")],
    base: Annotated[str, typer.Option(help="The model before unlearning, which knew the facts.")],
    forget: Annotated[Path, typer.Option(help="What was forgotten: JSONL or parquet file, or a folder.")],
    retain: Annotated[Path, typer.Option(help="What must still be known.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter for the unlearned model.")] = None,
    method: Annotated[
        str | None, typer.Option(help="A method that works at inference, such as icu: the model is asked through it. Settings by --set.")
    ] = None,
    settings: Set = None,
    reference: Reference = None,
    unseen: Annotated[Path | None, typer.Option(help="Rows about people no model ever met, like the forget rows.")] = None,
    rewordings: Annotated[Path | None, typer.Option(help="YAML file: other wordings by question or by row id.")] = None,
    views: Annotated[Path | None, typer.Option(help="Rows with other pictures of the same subjects.")] = None,
    served: Annotated[str | None, typer.Option(help="URL up to /v1 of a server that is said to serve the model; it is asked, too.")] = None,
    served_model: Annotated[str | None, typer.Option(help="The model's name there; the first it lists by default.")] = None,
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    policy: Annotated[Path | None, typer.Option(help="YAML file of thresholds; the package's own by default.")] = None,
    profile: Annotated[ProfileName, typer.Option(help="quick, or full: published budgets.")] = ProfileName.quick,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Forget rows, and retain rows, to ask at most.")] = None,
    batch_size: BatchSize = 64,
    out: Annotated[Path | None, typer.Option(help="Where to write audit.html and audit.json.", file_okay=False)] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    show_forgotten: Annotated[
        bool, typer.Option("--show-forgotten", help="Print the rows of facts that came back, on the screen.")
    ] = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Attack an unlearned model and judge it by a policy. Exit code 0: it passed; 3: it did not."""
    from vgid.attacks.base import Endpoint
    from vgid.auditing.audit import audit as run_audit
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.config import resolve
    from vgid.data.sources import load_examples
    from vgid.errors import ConfigError
    from vgid.progress import Stages
    from vgid.report.audit import audit_table, recovered_table, verdict_line

    check_used("--served", served, served_model=served_model)
    if settings and method is None:
        raise ConfigError("settings without a method", expected="--method beside --set", got="--set alone", fix="add --method icu")
    through = resolve(None, [f"seed={seed}", *(settings or [])], method=method) if method is not None else None
    with Stages(quiet=as_json) as stages:
        found = run_audit(
            model,
            base=base,
            forget=forget,
            retain=retain,
            reference=reference,
            policy=policy,
            profile=profile.value,
            max_rows=max_rows,
            seed=seed,
            batch_size=batch_size,
            unseen=unseen,
            rewordings=rewordings,
            views=views,
            turns=turns.value,
            image_root=image_root,
            served=Endpoint(served, served_model) if served else None,
            adapter=adapter,
            method=through,
            out=out,
            overwrite=overwrite,
            stages=stages,
        )
    rows = load_examples(forget, turns=turns.value, image_root=image_root) if show_forgotten else []
    facts = recovered_table(found.results, rows) if show_forgotten else None
    show(found.results, as_json, [audit_table(found.results), *([facts] if facts else []), verdict_line(found.results)], out)
    if found.status != "pass":
        raise typer.Exit(EXIT_CODE)
