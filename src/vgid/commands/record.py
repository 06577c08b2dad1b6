"""`vgid record`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import Json
from vgid.commands.root import app
from vgid.commands.show import plain, terminal

record_app = typer.Typer(help="Check, sign and describe deletion records.", no_args_is_help=True)
app.add_typer(record_app, name="record")
Folder = Annotated[Path, typer.Argument(help="The folder that `vgid forget` wrote.", file_okay=False)]


@record_app.command("verify")
def verify(
    folder: Folder,
    key: Annotated[Path | None, typer.Option(help="The run's key: shows that nobody without it has altered anything.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of record.json that was noted elsewhere.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Check the signature too (extra `sign`).")] = None,
    as_json: Json = False,
) -> None:
    """Find any file, record or result that was altered. Exit code 1 where one was."""
    from vgid.requests.keys import read_key
    from vgid.requests.manifest import MEANING
    from vgid.requests.manifest import verify as verify_record
    from vgid.requests.signing import check_signature

    found = verify_record(folder, read_key(key) if key else None, sha256)
    signed = check_signature(folder, public_key) if public_key else None
    problems = [*found.problems, *([signed] if signed else [])]
    means = MEANING["signed" if public_key and not signed else "keyed" if key else "noted" if sha256 else "plain"]
    if as_json:
        report = asdict(found) | {"schema": "vgid.record-verify/1", "intact": not problems, "problems": problems, "means": means}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        console = terminal(110)
        for problem in problems:
            console.print(f"[red]✗[/] {plain(problem)}", soft_wrap=True, highlight=False)
        if not problems:
            console.print(f"[green]✓[/] {found.files} files are as the record says. {means}", soft_wrap=True, highlight=False)
        console.print(f"  SHA-256 of record.json: {found.record}", soft_wrap=True, highlight=False)
    if problems:
        raise typer.Exit(1)


@record_app.command("sign")
def sign(
    folder: Folder,
    private_key: Annotated[Path, typer.Option(help="Elliptic curve key, PEM.", dir_okay=False)],
) -> None:
    """Sign model, record and seal with OpenSSF model-signing (extra `sign`); nothing is sent anywhere."""
    from vgid.requests.signing import sign_record

    terminal().print(f"signature {sign_record(folder, private_key)}", soft_wrap=True, highlight=False)


@record_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of `record.json`."""
    from vgid.requests.record import published_schema

    print(published_schema(), end="")
