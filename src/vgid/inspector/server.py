"""The inspector's server: loopback only, behind a token, without traces on disk and without a network."""

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
from vgid.inspector.page import Desk, build

HOST = "127.0.0.1"
MOST_BYTES = 16 * 2**20
"""Of an upload."""
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SSR_MODE": "False", "GRADIO_MCP_SERVER": "False"}


def check_installed() -> None:
    """Raises:
    ConfigError: the packages of the extra are missing.
    """
    missing = [name for name in ("gradio", "uvicorn", "fastapi") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "the inspector needs packages that are not installed", got=f"no {', '.join(missing)}", fix='pip install "vgid[ui]"'
        )


def serve(desk: Desk, port: int, told: Callable[[str], None]) -> None:
    """Serve until a signal comes; `told` gets the address. Uploaded pictures lie in a private folder that is removed at the end.

    Raises:
        ConfigError: the port is taken.
        RunError: the server ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="vgid-inspect-") as folder, _bound(port) as listening:
        os.environ.update({**QUIET, "GRADIO_TEMP_DIR": folder})
        port, token = listening.getsockname()[1], secrets.token_urlsafe(32)
        server = _server(build(desk), token, port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                thread.join(0.05)
            if server.started:
                told(f"http://{HOST}:{port}/?token={token}")
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
    """Gradio's app behind the guard; fonts are the system's, so that none is fetched."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

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
        max_file_size=MOST_BYTES,
        theme=theme,
        css=STYLE,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    guarded: Any = Guard(app, token, port, MOST_BYTES + 2**20)  # a little more for what comes with a file
    return uvicorn.Server(uvicorn.Config(guarded, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1))
