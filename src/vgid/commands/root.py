"""The command line itself, to which every file of commands adds its own."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="vgid",
    help="Make vision-language models forget people, and show honestly whether they did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Inspect and convert datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vgid {version('vgid')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")] = False,
) -> None:
    """Options before the command."""
