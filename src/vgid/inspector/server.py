"""The inspector's server: on the loopback address only, behind a token; it leaves no files and needs no network."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from vgid.errors import ConfigError, RunError
from vgid.inspector.guard import Guard
from vgid.inspector.markup import STYLE
from vgid.inspector.page import PageHandlers, build_page

HOST = "127.0.0.1"
MAX_BYTES = 16 * 2**20
"""Bytes of an uploaded file, at most: 16 MiB."""
SPARE_BYTES = 2**20
"""Bytes of a call beside its file: 1 MiB for names and headers of a form."""
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SSR_MODE": "False", "GRADIO_MCP_SERVER": "False"}


def check_installed() -> None:
    """Check that the packages of the extra `ui` are installed.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in ("gradio", "uvicorn", "fastapi") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "the inspector needs packages that are not installed", got=f"no {', '.join(missing)}", fix='pip install "vgid[ui]"'
        )


def serve(handlers: PageHandlers, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until a signal comes. Uploaded pictures are kept in a private folder that is removed at the end.

    Args:
        handlers: what the page's buttons do.
        port: port on 127.0.0.1; 0 takes a free one.
        announce: called once with the address, token included, when the page is served.

    Raises:
        ConfigError: the port cannot be used.
        RunError: the server ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="vgid-inspect-") as folder, _bound(port) as listening:
        os.environ.update({**QUIET, "GRADIO_TEMP_DIR": folder})
        port, token = listening.getsockname()[1], secrets.token_urlsafe(32)
        server = _server(build_page(handlers), token, port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.05)
            if server.started:
                announce(f"http://{HOST}:{port}/?token={token}")
            while thread.is_alive():
                thread.join(0.5)
        finally:
            server.should_exit = True
            thread.join(5)
        raise RunError("the inspector's server ended by itself", fix="start it again")


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            "the port cannot be used", got=f"{port}: {error.strerror}", fix="choose another --port, or leave it out"
        ) from None
    return listening


def _server(page: Any, token: str, port: int) -> Any:
    """Return a server for Gradio's app behind the guard."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    # Fonts of the system, so that none is downloaded.
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", **fonts)
    fill = {"fill": "*primary_700", "fill_hover": "*primary_800"}
    colours = {f"button_primary_background_{name}{scheme}": colour for name, colour in fill.items() for scheme in ("", "_dark")}
    theme.set(**colours, button_primary_text_color="white", button_primary_text_color_dark="white")
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        server_name=HOST,
        server_port=port,
        max_file_size=MAX_BYTES,
        theme=theme,
        css=STYLE,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    guarded: Any = Guard(app, token, port, MAX_BYTES + SPARE_BYTES)
    return uvicorn.Server(uvicorn.Config(guarded, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1))
