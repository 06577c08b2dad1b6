"""The endpoint check against a real server that runs the model, one that dropped an adapter, and ones that fail."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.attacks.people import material
from vgid.attacks import Material
from vgid.attacks.base import Endpoint
from vgid.attacks.served import ServedConfig, ServedModel
from vgid.auditing.audit import audit
from vgid.auditing.policy import Policy
from vgid.auditing.run import run_attacks
from vgid.commands import app
from vgid.data.example import Example, ImageRef
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, RunError
from vgid.evaluation.generation import generate
from vgid.models.adapters import attach_lora
from vgid.models.export import save_adapter
from vgid.models.loading import LoadedModel, load_model
from vgid.settings import AdapterConfig
from vgid.synthetic.tiny import tiny_path
from vgid.verify_served import Votes, count_votes, judge

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
    with pytest.raises(RunError, match=r"(?s)the server cannot be reached.*found: .*refused"):
        run(url)
    for wrong in (
        "localhost:8000",
        "http://[::1/v1",
        "http://127.0.0.1:abc/v1",
        "http:///v1",
        "http://127.0.0.1:99999/v1",
        "http://a b/v1",
    ):
        with pytest.raises(ConfigError, match="the endpoint is not an http or https URL"):
            run(wrong)


def test_an_audit_asks_the_server_before_it_loads_a_model() -> None:
    with serving(lambda _: {}) as url:
        pass
    with pytest.raises(RunError, match="the server cannot be reached"):
        audit("no/model", base="no/model", forget=small().forget, retain=small().retain, served=url)


@pytest.mark.parametrize(
    ("served", "votes", "verdict"),
    [
        # The models differ in three answers and agree in one.
        (["No idea.", "I forgot.", "Sorry.", "A circle."], (3, 3, 0, 1, 1), "unlearned"),
        (["no idea", "I forgot!", "SORRY", "a circle"], (3, 3, 0, 1, 1), "unlearned"),
        (["This is Anna.", "She lives in Oslo.", "A nurse.", "A circle."], (3, 0, 3, 1, 1), "base"),
        (["No idea.", "I forgot.", "A nurse.", "A circle."], (3, 2, 1, 1, 1), "other"),  # as where an adapter is loaded in part
        (["This is Bert.", "She lives in Rome.", "A pilot.", "A circle."], None, "other"),  # other facts in the same sentences
        (["No idea.", "I forgot.", "Sorry.", "Nothing at all"], (3, 3, 0, 1, 0), "other"),  # tells no fact, and is another model
        (["", "", "", ""], None, "other"),
    ],
)
def test_verdicts_on_a_server(served: list[str], votes: tuple[int, ...] | None, verdict: str) -> None:
    unlearned = ["No idea.", "I forgot.", "Sorry.", "A circle."]
    base = ["This is Anna.", "She lives in Oslo.", "A nurse.", "A circle."]
    found = count_votes(served, unlearned, base)
    assert votes is None or found == votes
    assert judge(found) == verdict
    assert judge(count_votes(served, base, unlearned)) == {"unlearned": "base", "base": "unlearned"}.get(verdict, verdict)


def test_a_quarter_of_the_answers_may_deviate() -> None:
    assert judge(Votes(4, 3, 0, 4, 3)) == "unlearned" and judge(Votes(4, 0, 3, 4, 3)) == "base"
    assert judge(Votes(4, 2, 0, 4, 4)) == judge(Votes(4, 4, 0, 4, 2)) == judge(Votes(3, 2, 0, 0, 0)) == "other"
    assert judge(Votes(4, 3, 1, 4, 4), facts_back=1) == "other" and judge(Votes(4, 0, 4, 4, 4), facts_back=4) == "base"
    assert judge(Votes(0, 0, 0, 8, 8)) == "undecided" and judge(Votes(0, 0, 0, 8, 5)) == "other"


def test_verify_served_tells_which_weights_are_served(base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unlearned model is an adapter's folder; one server applies the adapter, another drops it."""
    monkeypatch.setattr("vgid.verify_served.ASKED", 4)  # half as many, for a quick test
    rows = small().forget
    unlearned = silenced()
    save_adapter(unlearned.model, tmp_path / "adapter")
    write_examples(tmp_path / "forget.jsonl", rows)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tiny_path())}))

    def verified(reply: Reply, *more: str) -> Result:
        with serving(reply) as url:
            options = ("--model", str(tmp_path / "adapter"), "--base", str(tiny_path()), "--forget", str(tmp_path / "forget.jsonl"))
            result = CliRunner().invoke(app, ["verify-served", url, *options, *more])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert not any(row.question in result.output or row.answer in result.output for row in rows)
        return result

    good = verified(by(unlearned), "--json")
    report = json.loads(good.stdout)
    assert (good.exit_code, report["verdict"]) == (0, "unlearned") and report["as_unlearned"] == report["deciding"] > 0
    assert report["schema"] == "vgid.verify-served/1" and report["forget_rows"] == 4 < len(rows) and report["neutral_rows"] == 4
    assert report["facts"] == {"base": 4, "unlearned": 0, "served": 0} and report["facts_back"] == 0
    bad = verified(by(base))
    assert bad.exit_code == 3 and "the endpoint serves the weights before unlearning" in bad.stdout and "--served-model" in bad.stdout
    assert "facts of 4 forget rows: 4 by the base, 0 by the unlearned model, 4 by the server" in bad.stdout
