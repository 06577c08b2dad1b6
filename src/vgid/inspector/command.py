"""What `vgid inspect` does: look at what is given, load both models, serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vgid.data.sources import load_examples
from vgid.inspector.page import Desk
from vgid.inspector.server import check_installed, serve
from vgid.models.loading import load_model
from vgid.progress import Stages

MOST_ROWS = 500
"""Rows of the data that can be chosen."""


def inspect_command(
    before: str, after: str, adapter: Path | None, data: Path | None, port: int, stages: Stages, told: Callable[[str], None]
) -> None:
    """Serve the page until a signal comes.

    Raises:
        ConfigError: packages are missing, or the port is taken.
        DataError: the data cannot be read.
        ModelError: a model cannot be loaded.
    """
    check_installed()
    rows = load_examples(data, at_most=MOST_ROWS) if data is not None else []
    with stages("Loading both models", "load"):
        desk = Desk(load_model(before), load_model(after, adapter=adapter), rows)
    serve(desk, port, told)
