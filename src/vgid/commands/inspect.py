"""`vgid inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import TrustRemoteCode
from vgid.commands.root import app


@app.command()
def inspect(
    before: Annotated[str, typer.Option(help="Folder or hub id of the model before unlearning; it is the teacher too.")],
    after: Annotated[str, typer.Option(help="Folder or hub id of the unlearned model.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter for the unlearned model.", file_okay=False)] = None,
    data: Annotated[Path | None, typer.Option(help="Rows to choose from: JSONL or parquet file, or a folder.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask both models side by side in a browser, on this machine only; needs the extra `ui`."""
    from vgid.inspector.run import inspect_models
    from vgid.progress import Stages

    stdout = sys.stdout  # while stages are open, what is printed goes to stderr

    def announce(address: str) -> None:
        print(f"Open {address}\nPress Ctrl-C to stop.", file=stdout, flush=True)

    with Stages() as stages:
        try:
            inspect_models(before, after, adapter=adapter, data=data, port=port, announce=announce, stages=stages)
        except (KeyboardInterrupt, SystemExit):
            print("closed", file=stdout)
