"""The inspector from end to end: a real server, real models, a real browser."""

import asyncio
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.attacks.people import WORLD, rows
from tests.browser import chromium
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.inspector import server
from vgid.inspector.page import PageHandlers, build_page
from vgid.models.loading import LoadedModel
from vgid.synthetic.tiny import tiny_path

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
WATCHED = """
import socket, sys
real = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("NETWORK", address, file=sys.stderr, flush=True)
    return real(self, address)
socket.socket.connect = connect
resolve = socket.getaddrinfo
def getaddrinfo(host, *rest, **others):
    if host not in ("127.0.0.1", "::1", "localhost", None):
        print("NETWORK", host, file=sys.stderr, flush=True)
    return resolve(host, *rest, **others)
socket.getaddrinfo = getaddrinfo
from vgid.commands import main
main()
"""
"""The command, with all connections to other machines printed on stderr."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an inspector of the embedded model, and the folder for its temporary files."""
    if find_spec("gradio") is None:
        pytest.skip('the inspector is tested by the extra: pip install -e ".[ui]"')
    folder = tmp_path_factory.mktemp("inspect")
    examples = rows(WORLD.base_training_people[:2])
    write_examples(folder / "data" / "rows.jsonl", examples)
    (folder / "face.png").write_bytes(examples[0].images[0].read())
    (folder / "tmp").mkdir()
    options = ("inspect", "--before", tiny_path(), "--after", tiny_path(), "--data", folder / "data" / "rows.jsonl")
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, *map(str, options)], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Open "), (line, (folder / "errors").read_text())
        yield line.split()[1], folder
        assert list((folder / "tmp").iterdir())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and "closed" in process.stdout.read()
    assert not list((folder / "tmp").iterdir()) and "NETWORK" not in (folder / "errors").read_text()


@pytest.fixture
def page(running: tuple[str, Path]) -> Iterator[Any]:
    with chromium() as browser:
        page = browser.new_page()
        page.elsewhere, page.dialogs, page.errors = [], [], []
        host = urlsplit(running[0]).netloc
        page.on("request", lambda request: page.elsewhere.append(request.url) if urlsplit(request.url).netloc not in (host, "") else None)
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(running[0])
        page.get_by_label("Question").wait_for(timeout=60_000)
        yield page
        assert not page.elsewhere and not page.dialogs


@pytest.mark.slow
def test_calls_without_the_token_are_refused(running: tuple[str, Path]) -> None:
    address = urlsplit(running[0])
    assert address.hostname == "127.0.0.1" and len(address.query) > 40
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/upload", f"/?token={'x' * 43}"):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == 403, path
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.request("GET", f"/?{address.query}")
    cookie = connection.getresponse().headers["set-cookie"].split(";")[0]
    for headers, status in (({"Content-Length": str(2**25)}, 413), ({"Content-Length": "0", "Origin": "http://evil.example"}, 403)):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
        connection.request("POST", "/gradio_api/upload", headers={"Cookie": cookie, **headers})
        assert connection.getresponse().status == status


@pytest.mark.slow
def test_no_route_answers_without_the_token(random_model: LoadedModel) -> None:
    """Of all routes that Gradio and FastAPI have, by every method and some that they do not know."""
    pytest.importorskip("gradio", reason='the inspector is tested by the extra: pip install -e ".[ui]"')
    guard = server._server(build_page(PageHandlers(random_model, random_model)), "secret-token", 7000).config.app

    def found(routes: Any, before: str = "") -> Iterator[tuple[str, str]]:
        for route in routes:
            path = before + getattr(route, "path", "")
            yield from ((re.sub(r"{[^}]*}", "x", path) or "/", method) for method in {*(getattr(route, "methods", None) or ()), "PATCH"})
            inside = getattr(route, "original_router", route)  # of routers that FastAPI includes
            yield from found(getattr(inside, "routes", None) or (), path)

    def status(path: str, method: str, headers: dict[str, str]) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        coded = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": coded}
        asyncio.run(guard({**scope, "http_version": "1.1", "scheme": "http", "root_path": "", "app": guard.app}, receive, send))
        return int(sent[0]["status"])

    here, cookie = {"host": "127.0.0.1:7000"}, {"cookie": "vgid_7000=secret-token"}
    routes = sorted(set(found(guard.app.routes)))
    assert {"/", "/config"} < {path for path, _ in routes} and any(path.endswith("/upload") for path, _ in routes)
    for path, method in routes:
        assert status(path, method, here) == 403, (path, method)
        assert status(path, method, {**cookie, "host": "evil.example:7000"}) == 403, (path, method)
        assert status(path, method, {**here, **cookie, "origin": "http://evil.example"}) == 403, (path, method)
    assert status("/config", "GET", {**here, **cookie}) == 200


@pytest.mark.slow
def test_ask_teach_and_attack(running: tuple[str, Path], page: Any) -> None:
    assert "token" not in page.url
    page.set_input_files("input[type=file]", running[1] / "face.png")
    page.get_by_role("img").first.wait_for()
    page.get_by_label("Question").fill("Who is this person?")
    page.get_by_role("button", name="Ask", exact=True).click()
    cards = page.locator("#answers .vi-card")
    cards.nth(1).wait_for(timeout=60_000)
    name = WORLD.base_training_people[0].name
    assert [name in card for card in cards.all_inner_texts()] == [True, True]
    cards.first.get_by_text("Other likely tokens").click()
    assert re.search(r"\d\d\.\d %", cards.first.locator("table").inner_text().replace("\xa0", " "))
    page.get_by_role("tab", name="Teacher").click()
    page.get_by_role("button", name="Ask the teacher").click()
    page.get_by_text("Teacher: both").wait_for(timeout=60_000)
    assert page.get_by_alt_text("The picture as the teacher sees it").is_visible()
    page.get_by_role("tab", name="Attacks").click()
    page.get_by_role("button", name="Ask in other ways").click()
    page.locator("#attacks table").wait_for(timeout=60_000)
    assert page.locator("#attacks tbody tr").count() > 8 and "no recorded answer" in page.locator("#attacks").inner_text()


@pytest.mark.slow
def test_bad_and_hostile_input(page: Any) -> None:
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("there is no question").wait_for(timeout=60_000)
    page.get_by_label("Question").fill(EVIL)
    page.get_by_label("The answer begins with").fill(EVIL)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#answers .vi-card").first.wait_for(timeout=60_000)
    assert EVIL in page.locator("#answers").inner_text() and page.locator("#answers script, #answers img").count() == 0


@pytest.mark.slow
def test_a_page_without_the_token_sees_nothing(running: tuple[str, Path]) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(running[0].split("?")[0])
        assert "Open the address that vgid inspect printed" in page.inner_text("body") and page.locator("input").count() == 0


def test_without_the_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"no gradio, uvicorn, fastapi(.|\n)*pip install \"vgid\[ui\]\""):
        server.check_installed()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with server._bound(0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="the port cannot be used"):
            server._bound(taken.getsockname()[1])
