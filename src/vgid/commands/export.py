"""`vgid export` and `vgid verify-export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vgid.commands.options import Json, Out
from vgid.commands.root import app
from vgid.commands.show import plain, show


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Folder or hub id of the adapter's base.")],
    out: Out,
    adapter: Annotated[Path | None, typer.Option(help="Folder of the adapter; without, a merged model is copied.", file_okay=False)] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge it into the base: a plain checkpoint. Without, the adapter is copied.")
    ] = False,
) -> None:
    """Merge an adapter into a plain checkpoint, or copy it after a check that it fits its base."""
    from vgid.deployment import export_command

    export_command(model, adapter, out, merge=merge)
    show({"out": str(out)}, False, [f"{'merged' if merge or adapter is None else 'adapter':<8} {plain(str(out))}"])


@app.command("verify-export")
def verify_export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a merged model's or an adapter's.", file_okay=False)],
    base: Annotated[str | None, typer.Option(help="The adapter's base; the one the adapter names by default.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter, where it lies elsewhere.", file_okay=False)] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Questions to compare on; neutral ones by default. Repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Check that stock libraries load an export and answer as the trained model does; print how to serve it."""
    from vgid.deployment import verify_command

    report = verify_command(folder, base, data or [], adapter=adapter)
    show(report, as_json, _lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    for name, path in report["exports"].items():
        tensors = f", all {report['tensors']} tensors in place" if name == "adapter" else ""
        yield f"[green]✓[/] {name:<8} loads: {plain(path)}{tensors}"
    if report["same_answers"] is not None:
        same, worst = report["same_answers"], report["largest_difference"]
        yield f"[green]✓[/] {'compared':<8} {same:.0%} of {report['compared_on']} answers the same, logits within {worst:.2g}"
    for warning in report["warnings"]:
        yield f"[yellow]![/] {plain(warning)}"
    for server in ("vllm", "sglang"):
        if report[server]:
            yield f"  {server:<8} {plain(' '.join(report[server]))}"
