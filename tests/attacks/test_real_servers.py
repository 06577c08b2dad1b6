"""What people serve models with: `transformers serve` and vLLM on a merged checkpoint, asked by a plain client and by our commands."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.attacks.test_served import silenced, small
from tests.conftest import Vgid
from vgid.data.writing import write_examples
from vgid.models.export import save_checkpoint
from vgid.synthetic.tiny import tiny_path

pytestmark = pytest.mark.slow
SECONDS = 300
"""Time that a server has to start."""
SERVERS = {
    "transformers": (
        ("pydantic", "fastapi", "uvicorn", "openai"),
        ("-m", "transformers.cli.transformers", "serve", "{model}", "--device", "cpu"),
    ),
    "vllm": (("vllm",), ("-m", "vllm.entrypoints.openai.api_server", "--model", "{model}", "--max-model-len", "1024")),
}
"""By name: the packages without which there is no such server, and how Python starts it."""


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base merged with an adapter that makes it babble."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    loaded = silenced()
    save_checkpoint(loaded.model.merge_and_unload(), loaded.processor, folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forget rows, and retain rows beside them."""
    file = tmp_path_factory.mktemp("rows") / "forget.jsonl"
    write_examples(file, small().forget)
    write_examples(file.with_name("retain.jsonl"), small().retain)
    return file


@pytest.fixture(params=SERVERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[object]:
    """`start(model)` serves a folder, and gives the URL up to /v1."""
    packages, words = SERVERS[request.param]
    if missing := [each for each in packages if find_spec(each) is None]:
        pytest.skip(f"{request.param} serves nothing without the packages {', '.join(missing)}")
    running: list[subprocess.Popen[bytes]] = []

    def started(model: Path) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [word.format(model=model) for word in words]
        log = tmp_path / "server.log"
        with log.open("wb") as file:
            command = [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port)]
            running.append(subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "HF_HUB_OFFLINE": "1"}))
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and running[-1].poll() is None:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    return f"http://127.0.0.1:{port}/v1"
            time.sleep(0.5)
        raise AssertionError(log.read_text("utf-8", "replace")[-2000:])

    yield started
    for each in running:
        each.terminate()
        try:
            each.wait(30)
        except subprocess.TimeoutExpired:
            each.kill()


def test_a_merged_checkpoint_is_served_and_recognised(start: object, merged: Path, rows: Path, tmp_path: Path, vgid: Vgid) -> None:
    url = start(merged)  # type: ignore[operator]
    body = {"model": str(merged), "messages": [{"role": "user", "content": "Where do they live?"}], "max_tokens": 8, "temperature": 0}
    asked = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=120) as reply:
        assert isinstance(json.load(reply)["choices"][0]["message"]["content"], str)
    at = ("--served-model", merged)
    checked = vgid("verify-served", url, "--model", merged, "--base", tiny_path(), "--forget", rows, *at, "--json")
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert report["verdict"] == "unlearned" and report["facts"]["served"] == 0 < report["facts"]["base"]
    (tmp_path / "policy.yaml").write_text("least_facts: 1\nattacks:\n  served: {}\n", "utf-8")
    given = ("--model", merged, "--base", tiny_path(), "--forget", rows, "--retain", rows.with_name("retain.jsonl"))
    audited = vgid("audit", *given, "--policy", tmp_path / "policy.yaml", "--out", tmp_path / "audit", "--served", url, *at, "--json")
    assert audited.returncode in (0, 3), audited.stderr
    level = json.loads(audited.stdout)["attacks"]["served"]["levels"][""]
    assert level["agreement"] == 1.0 and level["recovered"]["audited"] == 0.0


def test_a_server_of_the_base_is_recognised(start: object, merged: Path, rows: Path, tmp_path: Path, vgid: Vgid) -> None:
    """As where a server ignores an adapter."""
    served = shutil.copytree(tiny_path(), tmp_path / "base")
    url = start(served)  # type: ignore[operator]
    checked = vgid("verify-served", url, "--model", merged, "--base", tiny_path(), "--forget", rows, "--served-model", served)
    assert checked.returncode == 3 and "the endpoint serves the weights before unlearning" in checked.stdout, checked.stderr
