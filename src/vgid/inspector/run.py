"""`vgid inspect` as a function: read the data, load both models, serve the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vgid.data.sources import load_examples
from vgid.inspector.page import PageHandlers
from vgid.inspector.server import check_installed, serve
from vgid.models.loading import load_model
from vgid.progress import Stages

MAX_ROWS = 500
"""Rows of the data that the page lists, at most; chosen by hand, since a longer list cannot be overlooked."""


def inspect_models(
    before: str,
    after: str,
    *,
    adapter: Path | None = None,
    data: Path | None = None,
    port: int = 0,
    announce: Callable[[str], None],
    stages: Stages,
) -> None:
    """Serve the page until a signal comes.

    Args:
        before: folder or hub id of the model before unlearning; it is the teacher too.
        after: folder or hub id of the unlearned model.
        adapter: folder of an adapter for the unlearned model.
        data: rows that can be chosen on the page.
        port: port on 127.0.0.1; 0 takes a free one.
        announce: called once with the page's address, when it is served.
        stages: shows that models are loaded.

    Raises:
        ConfigError: packages are missing, or the port cannot be used.
        DataError: the data cannot be read.
        ModelError: a model cannot be loaded.
        RunError: the server ended by itself.
    """
    check_installed()
    rows = load_examples(data, at_most=MAX_ROWS) if data is not None else []
    with stages("Loading both models", "load"):
        handlers = PageHandlers(load_model(before), load_model(after, adapter=adapter), rows)
    serve(handlers, port, announce)
