"""`vgid export`, `vgid verify-export` and `vgid verify-served`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vgid.commands.options import ImageRoot, Json, Out, TrustRemoteCode, Turns, TurnsName
from vgid.commands.root import app
from vgid.commands.show import plain, show
from vgid.progress import launch_rank


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Folder or hub id of the adapter's base.")],
    out: Out,
    adapter: Annotated[Path | None, typer.Option(help="Folder of the adapter; without, a merged model is copied.", file_okay=False)] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge it into the base: a plain checkpoint. Without, the adapter is copied.")
    ] = False,
    to: Annotated[str | None, typer.Option(help="Number format: bf16, fp16, fp32, 8bit, 4bit or gguf; an adapter is merged.")] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows whose facts must not come back with --to.")] = None,
    retain: Annotated[Path | None, typer.Option(help="More rows to ask before and after --to; neutral ones by default.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload it to this repository of the hub, OWNER/NAME; the token is read from HF_TOKEN.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Json = False,
) -> None:
    """Merge an adapter into a plain checkpoint, copy one after a check, or write it in another number format.

    Exit code 1: forgotten facts came back with the format; 2: bad input.
    """
    from vgid.deployment import export_command
    from vgid.errors import ConfigError

    if to is None and (forget or retain):
        raise ConfigError("rows are asked only for another number format", got="--forget or --retain without --to", fix="add --to")
    if push is not None:
        from vgid.pushing import check_push

        check_push(push)
    report = export_command(model, adapter, out, merge=merge, to=to, forget=forget, retain=retain)
    kind = "adapter" if adapter is not None and not merge and to is None else "merged"
    lines = [f"{kind:<8} {plain(str(out))}", *_format_lines(report)]
    if push is not None:
        from vgid.pushing import push as upload

        report["push"] = upload(out, push)
        lines.append(f"{'pushed':<8} {len(report['push']['files'])} files to {plain(report['push']['url'])}")
        if report["push"]["existed"]:
            lines.append("[yellow]![/] the repository existed before: its earlier commits still hold what they held")
    show({"out": str(out), **report}, as_json, lines)


@app.command("verify-export")
def verify_export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a merged model's or an adapter's.", file_okay=False)],
    base: Annotated[str | None, typer.Option(help="The adapter's base; the one the adapter names by default.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter, where it lies elsewhere.", file_okay=False)] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Questions to compare on; neutral ones by default. Repeatable.")] = None,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Check that stock libraries load an export and answer as the trained model does; print how to serve it.

    Under a launcher the models are sharded over its processes, so they may be larger than one device.
    """
    from vgid.deployment import verify_command

    report = verify_command(folder, base, data or [], adapter=adapter, shard=True)
    if launch_rank() == 0:
        show(report, as_json, _lines(report))


@app.command("verify-served")
def verify_served(
    url: Annotated[str, typer.Argument(help="URL of the server, up to /v1.")],
    model: Annotated[str, typer.Option(help="Folder or hub id of the unlearned model.")],
    base: Annotated[str, typer.Option(help="The model before unlearning, which knew the facts.")],
    forget: Annotated[Path, typer.Option(help="What was forgotten; eight rows at most are asked.")],
    served_model: Annotated[str | None, typer.Option(help="The model's name there; the first it lists by default.")] = None,
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask a server a few questions, and tell whether it serves the unlearned weights. Exit code 0: it does; 3: not, or undecided."""
    from vgid.attacks.base import Endpoint
    from vgid.auditing.verdict import EXIT_CODE
    from vgid.verify_served import verify_served as verify

    report = verify(Endpoint(url, served_model), model, base, forget, turns=turns.value, image_root=image_root)
    show(report, as_json, _served_lines(report))
    if report["verdict"] != "unlearned":
        raise typer.Exit(EXIT_CODE)


def _served_lines(report: Mapping[str, Any]) -> Iterator[str]:
    from vgid.verify_served import VERDICTS

    good = report["verdict"] == "unlearned"
    yield f"{'[green]✓[/]' if good else '[red]✗[/]'} {VERDICTS[report['verdict']]}"
    counts = "{deciding} answers distinguish the models: {as_unlearned} as the unlearned model, {as_base} as the base"
    yield f"  {counts.format(**report)}; {report['as_both']} of {report['common']} others as both"
    facts = "{base} by the base, {unlearned} by the unlearned model, {served} by the server"
    yield f"  facts of {report['forget_rows']} forget rows: {facts.format(**report['facts'])}"
    if not good:
        yield f"  fix: {report['advice']}"


def _format_lines(report: Mapping[str, Any]) -> Iterator[str]:
    if "format" not in report:
        return
    yield f"{report['format']:<8} {report['same_answers']:.0%} of {report['rows']} answers the same"
    if report["forget_rows"]:
        counts = "{facts_before} of {forget_rows} forget rows answered before, {facts_after} after, {facts_back} came back"
        yield f"{'forgot':<8} {counts.format(**report)}"
    else:
        yield "[yellow]![/] no forget rows were asked; give --forget to see whether rounding brings facts back"


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
