"""Which calls reach the inspector."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from vgid.inspector.guard import Guard

TOKEN, HOST = "secret-token", "127.0.0.1:7000"
COOKIE = {"host": HOST, "cookie": f"other=1; vgid_7000={TOKEN}"}


async def inner(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    read, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        read, more = read + message["body"], message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": read})


def call(headers: dict[str, str], query: str = "", body: tuple[bytes, ...] = (b"",), kind: str = "http") -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []
    parts = iter([{"type": "http.request", "body": part, "more_body": place + 1 < len(body)} for place, part in enumerate(body)])

    async def receive() -> MutableMapping[str, Any]:
        return next(parts)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    coded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "headers": coded, "query_string": query.encode(), "path": "/"}
    asyncio.run(Guard(inner, TOKEN, 7000, max_bytes=10)(scope, receive, send))
    return sent


def test_the_token_becomes_a_cookie_that_lets_calls_through() -> None:
    first = call({"host": HOST}, f"token={TOKEN}")[0]
    headers = dict(first["headers"])
    assert first["status"] == 303 and headers[b"location"] == b"/"
    assert headers[b"set-cookie"] == f"vgid_7000={TOKEN}; HttpOnly; SameSite=Strict; Path=/".encode()
    start, rest = call(COOKIE, body=(b"abc", b"def"))
    assert start["status"] == 200 and rest["body"] == b"abcdef"
    headers = dict(start["headers"])
    assert headers[b"cache-control"] == b"no-store" and b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"host": HOST}, "", 403),
        ({"host": HOST}, "token=wrong", 403),
        ({"host": HOST, "cookie": "vgid_7000=wrong"}, "", 403),
        ({"host": HOST, "cookie": f"vgid_7001={TOKEN}"}, "", 403),
        ({"host": HOST, "cookie": "\x00;;=\xe9"}, "", 403),
        ({**COOKIE, "host": "evil.example:7000"}, "", 403),
        ({"cookie": COOKIE["cookie"]}, "", 403),
        ({**COOKIE, "origin": "http://evil.example"}, "", 403),
        ({**COOKIE, "origin": "null"}, "", 403),
        ({**COOKIE, "origin": f"http://{HOST}"}, "", 200),
        ({**COOKIE, "content-length": "11"}, "", 413),
    ],
)
def test_refused_calls(headers: dict[str, str], query: str, status: int) -> None:
    assert call(headers, query)[0]["status"] == status


def test_a_body_longer_than_its_header_says_is_cut_off() -> None:
    assert call({**COOKIE, "content-length": "3"}, body=(b"123456", b"789012")) == []


def test_web_sockets_are_closed() -> None:
    assert call(COOKIE, kind="websocket") == [{"type": "websocket.close", "code": 1008}]
