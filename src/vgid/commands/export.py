"""`vgid export` and `vgid verify-export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import Json, Out
from vgid.commands.root import app
from vgid.commands.show import plain, terminal


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Folder or hub id of the adapter's base.")],
    out: Out,
    adapter: Annotated[Path | None, typer.Option(help="Folder of the adapter; without, a merged model is copied.", file_okay=False)] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge it into the base: a plain checkpoint. Without, the adapter is copied.")
    ] = False,
) -> None:
    """Write an adapter as a plain checkpoint of its own, or copy it once it has been shown to fit."""
    from vgid.deployment import export_command

    export_command(model, adapter, out, merge=merge)
    terminal().print(f"{'merged' if merge or adapter is None else 'adapter':<8} {out}", soft_wrap=True, highlight=False)


@app.command("verify-export")
def verify_export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a merged model's or an adapter's.", file_okay=False)],
    base: Annotated[str | None, typer.Option(help="The adapter's base; the one the adapter names by default.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter, where it lies elsewhere.", file_okay=False)] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Questions to compare on; neutral ones by default. Repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Make sure that stock libraries load what was written and answer the same, and say how to serve it."""
    from vgid.deployment import verify_command

    report = verify_command(folder, base, data or [], adapter=adapter)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    console = terminal(110)
    for name, path in report["exports"].items():
        tensors = f", all {report['tensors']} tensors in place" if name == "adapter" else ""
        console.print(f"[green]✓[/] {name:<8} loads: {plain(path)}{tensors}", soft_wrap=True, highlight=False)
    if report["same_answers"] is not None:
        same, worst = report["same_answers"], report["largest_difference"]
        text = f"{same:.0%} of {report['compared_on']} answers the same, logits within {worst:.2g}"
        console.print(f"[green]✓[/] {'compared':<8} {text}", highlight=False)
    for warning in report["warnings"]:
        console.print(f"[yellow]![/] {plain(warning)}", soft_wrap=True, highlight=False)
    for server in ("vllm", "sglang"):
        if report[server]:
            console.print(f"  {server:<8} {plain(' '.join(report[server]))}", soft_wrap=True, highlight=False)
