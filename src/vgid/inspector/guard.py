"""Access to the inspector: for holders of the token on this machine only, and for no other page in their browser."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: the page may connect to its own server only."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}


class Guard:
    """ASGI middleware that decides which calls reach the inspector.

    The first call has the token in its address and gets it back as a cookie; every other call must send the cookie. Calls under another
    host's name (DNS rebinding), calls from another page (Origin), calls that are too large and web sockets are refused.

    Args:
        app: the application behind the guard.
        token: the secret.
        port: port of the server; it is part of the cookie's name, since cookies do not distinguish ports.
        max_bytes: size of a call's body, at most.
    """

    def __init__(self, app: App, token: str, port: int, max_bytes: int) -> None:
        self.app, self.token, self.max_bytes = app, token, max_bytes
        self.cookie = f"vgid_{port}"
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one call."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host") not in self.hosts:
            await _refuse(send, 403, "This server answers under 127.0.0.1 and localhost only.")
        elif headers.get(b"origin") not in (None, *(f"http://{host}" for host in self.hosts)):
            await _refuse(send, 403, "Calls from other pages are refused.")
        elif self._same(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]):
            await self._let_in(send)
        elif not self._same(_cookie(headers.get(b"cookie", ""), self.cookie)):
            await _refuse(send, 403, "Open the address that vgid inspect printed, with its token.")
        elif _length(headers.get(b"content-length", "0")) > self.max_bytes:
            await _refuse(send, 413, f"Too large: at most {self.max_bytes // 2**20} MB.")
        else:
            await self.app(scope, _limited(receive, self.max_bytes), _with_headers(send))

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    async def _let_in(self, send: Send) -> None:
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, "", {b"location": b"/", b"set-cookie": cookie.encode()})


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _length(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """End a call whose body is larger than allowed; its header may state a smaller size, or none."""
    read = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= max_bytes else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in HEADERS]
            message = {**message, "headers": [*kept, *HEADERS.items()]}
        await send(message)

    return with_headers


async def _refuse(send: Send, status: int, text: str) -> None:
    await _answer(send, status, text, {})


async def _answer(send: Send, status: int, text: str, headers: dict[bytes, bytes]) -> None:
    sent = {b"content-type": b"text/plain; charset=utf-8", **HEADERS, **headers}
    await send({"type": "http.response.start", "status": status, "headers": list(sent.items())})
    await send({"type": "http.response.body", "body": text.encode()})
