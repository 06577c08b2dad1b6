"""`vgid record`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import ImageRoot, Json, Out, Overwrite, TrustRemoteCode
from vgid.commands.root import app
from vgid.commands.show import plain, show

record_app = typer.Typer(help="Check, sign, repeat and describe deletion records.", no_args_is_help=True)
app.add_typer(record_app, name="record")
SHOWN = 100
"""Problems that the screen lists, at most."""
Folder = Annotated[Path, typer.Argument(help="The folder that `vgid forget` wrote.", file_okay=False)]


@record_app.command("verify")
def verify(
    folder: Folder,
    key: Annotated[Path | None, typer.Option(help="The run's key: shows that nobody without it has altered anything.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of record.json that was noted elsewhere.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Check the signature too (extra `sign`).")] = None,
    as_json: Json = False,
) -> None:
    """Find every file, record or result that was altered. Exit code 1 where one was."""
    from vgid.requests.keys import read_key
    from vgid.requests.manifest import MEANING, verify_record
    from vgid.requests.signing import check_signature

    found = verify_record(folder, read_key(key) if key else None, sha256)
    invalid = check_signature(folder, public_key) if public_key else None
    problems = [*found.problems, *([invalid] if invalid else [])]
    means = MEANING["signed" if public_key and not invalid else "keyed" if key else "noted" if sha256 else "plain"]
    report = asdict(found) | {"schema": "vgid.record-verify/1", "intact": not problems, "problems": problems, "means": means}
    intact = f"[green]✓[/] {found.files} files are as the record says. {means}"
    lines = [f"[red]✗[/] {plain(problem)}" for problem in problems[:SHOWN]] or [intact]
    lines += [f"... and {len(problems) - SHOWN} more, which --json lists"] if len(problems) > SHOWN else []
    show(report, as_json, [*lines, f"  SHA-256 of record.json: {found.record}"])
    if problems:
        raise typer.Exit(1)


@record_app.command("sign")
def sign(
    folder: Folder,
    private_key: Annotated[Path, typer.Option(help="Elliptic curve key, PEM.", dir_okay=False)],
) -> None:
    """Sign model, record and manifest with OpenSSF model-signing (extra `sign`); nothing is sent anywhere."""
    from vgid.requests.signing import sign_record

    signature = sign_record(folder, private_key)
    show({"signature": str(signature)}, False, [f"signature {plain(str(signature))}"])


@record_app.command("replay")
def replay(
    folder: Folder,
    out: Out,
    request: Annotated[Path | None, typer.Option(help="The request's folder, where it has moved.", file_okay=False)] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model before, where it has moved.")] = None,
    retain: Annotated[Path | None, typer.Option(help="The rows to keep, where they have moved.")] = None,
    reference: Annotated[str | None, typer.Option(help="The model that never saw the rows, where it has moved.")] = None,
    image_root: ImageRoot = None,
    earlier_run: Annotated[
        Path | None, typer.Option(help="The run that this one came after or went on from, where it has moved.", file_okay=False)
    ] = None,
    earlier: Annotated[
        list[Path] | None, typer.Option(help="Request folder of an earlier run, where it has moved; repeatable.", file_okay=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The run's key, by default FOLDER.key; it becomes the replay's, too.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run a recorded request again with the settings of its record, and compare weights and figures.

    Inputs that are not the recorded ones are refused. The same command continues a replay that was stopped. Exit code 0: all is equal;
    3: something differs; 1: a step failed, or the run was altered; 2: bad input.
    """
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.progress import Stages
    from vgid.requests.replay import ReplayOptions
    from vgid.requests.replay import replay as run_replay

    options = ReplayOptions(folder, out, model, request, retain, reference, image_root, earlier_run, tuple(earlier or ()), key, overwrite)
    with Stages(quiet=as_json) as stages:
        result = run_replay(options, stages=stages)
    different = {"weights": [f"merged/{name}" for name in result.weights], "figures": list(result.figures)}
    lines = [f"[red]✗[/] other {kind}: {plain(', '.join(names))}" for kind, names in different.items() if names]
    show(result.as_json(), as_json, [*(lines or ["[green]✓[/] equal"]), f"  {plain(result.means)}"])
    if not result.equal:
        raise typer.Exit(EXIT_CODE)


@record_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of `record.json`."""
    from vgid.requests.record import published_schema

    print(published_schema(), end="")
