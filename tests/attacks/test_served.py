"""The endpoint check against a real server that runs the model, one that dropped an adapter, and ones that fail."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.attacks.people import material
from vgid.attacks import Material
from vgid.attacks.base import Endpoint
from vgid.attacks.served import ServedConfig, ServedModel
from vgid.auditing.policy import Policy
from vgid.auditing.run import run_attacks
from vgid.data.example import Example, ImageRef
from vgid.errors import ConfigError, RunError
from vgid.evaluation.generation import generate
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel, load_model
from vgid.settings import AdapterConfig
from vgid.synthetic.tiny import tiny_path

Reply = Callable[[dict[str, Any]], Any]
POLICY = Policy(attacks={"served": {}}, least_facts=8)


@contextmanager
def serving(reply: Reply, status: int = 200) -> Iterator[str]:
    """A server on this machine that answers chat completions by `reply`; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def send(self, body: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:
            self.send({"data": [{"id": "tiny"}]} if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions" and body["model"] == "tiny" and body["temperature"] == 0
            self.send(reply(body))

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def by(loaded: LoadedModel) -> Reply:
    """Answers of a model, by what the request holds alone."""
    lock = threading.Lock()

    def reply(body: dict[str, Any]) -> Any:
        parts = body["messages"][0]["content"]
        pictures = [base64.b64decode(p["image_url"]["url"].partition("base64,")[2]) for p in parts if p["type"] == "image_url"]
        row = Example("asked", parts[-1]["text"], "", tuple(ImageRef(data=each) for each in pictures))
        with lock:
            [text] = generate(loaded, [row], max_new_tokens=body["max_tokens"])
        return {"choices": [{"message": {"role": "assistant", "content": text}}]}

    return reply


def small() -> Material:
    return material(3, 2, facts=2, texts=1)


def silenced() -> LoadedModel:
    """The base behind an adapter that makes it babble."""
    import torch

    loaded = load_model(tiny_path())
    model = attach_lora(loaded.model, AdapterConfig(rank=4), seed=0, log_targets=False)
    with torch.no_grad():
        for number, parameter in enumerate(p for name, p in model.named_parameters() if "lora_" in name):
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(number))
    return replace(loaded, model=model.eval())


def test_a_server_of_the_audited_model_agrees_with_it(base: LoadedModel) -> None:
    with serving(by(base)) as url:
        given = replace(small(), served=Endpoint(url))
        [outcome] = ServedModel(ServedConfig(at_once=2)).run(base, given).values()
    assert outcome.agreement == 1.0 and sum(outcome.forget.values()) == len(outcome.forget)
    assert ServedModel(ServedConfig()).run(base, small()) == {}


def test_a_server_that_drops_the_adapter_is_caught(base: LoadedModel) -> None:
    with serving(by(base)) as url:
        given = replace(small(), served=Endpoint(url, "tiny"))
        results = run_attacks({"base": lambda: base, "audited": silenced}, given, POLICY)
    level = results["attacks"]["served"]["levels"][""]
    assert level["status"] == "fail" and level["share"] == 1.0 and level["clean"] == {"base": 1.0, "audited": 0.0}
    assert level["agreement"] <= 0.2 and level["recovered"] == {"base": 1.0, "audited": 1.0}


def test_a_server_of_another_model_decides_nothing(base: LoadedModel) -> None:
    with serving(lambda _: {"choices": [{"message": {"content": "I have no idea."}}]}) as url:
        results = run_attacks({"base": lambda: base, "audited": lambda: base}, replace(small(), served=Endpoint(url)), POLICY)
    assert results["attacks"]["served"]["levels"][""]["reason"] == "answers are not the audited model's"
    assert results["verdict"]["status"] == "inconclusive"


def test_servers_that_fail(base: LoadedModel) -> None:
    def run(url: str) -> None:
        ServedModel(ServedConfig(seconds=5)).run(base, replace(small(), served=Endpoint(url, "tiny")))

    with serving(lambda _: {"error": "no"}, status=404) as url, pytest.raises(RunError, match="the server refuses the request") as refused:
        run(url)
    assert "status 404" in str(refused.value) and "--served-model" in str(refused.value)
    with serving(lambda _: {"choices": []}) as url, pytest.raises(RunError, match=r"a reply with choices\.0\.message\.content"):
        run(url)
    with serving(lambda _: {}) as url:
        pass
    with pytest.raises(RunError, match="the server does not reply with JSON"):
        run(url)
    with pytest.raises(ConfigError, match="the endpoint is not an http or https URL"):
        run("localhost:8000")
