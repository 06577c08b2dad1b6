"""Ask the model that a server gives out (OpenAI-compatible): it may have lost the adapter, or be another model altogether."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPException
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from vgid.attacks.asking import MAX_NEW_TOKENS, find
from vgid.attacks.base import ATTACKS, Attack, Endpoint, Material, Outcomes, Settings
from vgid.attacks.image_rephrase import encoded
from vgid.data.conversation import messages
from vgid.data.example import Example
from vgid.errors import ConfigError, RunError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact, normalise
from vgid.models.loading import LoadedModel

KEY = "VGID_SERVED_KEY"
"""Environment variable: the server's API key, sent as a bearer token; it appears in no file and no message."""
LARGEST = 16 * 2**20
"""Bytes of a reply that are read."""


class ServedConfig(Settings):
    """Settings of the attack.

    Attributes:
        at_once: number of concurrent requests.
        seconds: timeout of a request.
    """

    at_once: int = Field(default=8, ge=1)
    seconds: float = Field(default=120, gt=0)


@ATTACKS.register("served")
class ServedModel(Attack[ServedConfig]):
    """Send the clean questions to the endpoint that a user gives, and to no other; without an endpoint the attack does not apply."""

    Config = ServedConfig
    access = "black box"
    finds = "adapters that a server drops, other models than the audited one"
    tries = "Asking the server that offers the model to its users"
    audited_only = True
    most = 0.1
    position = 150

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level: the facts that the served model gives, and how often its answer equals that of the audited model."""
        if material.served is None:
            return {}
        rows = material.everything
        said = answers(material.served, rows, self.config)
        expected = generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=material.batch_size)
        agreement = fmean(normalise(ours) == normalise(theirs) for ours, theirs in zip(expected, said, strict=True))
        texts = {row.id: [text] for row, text in zip(rows, said, strict=True)}
        found = find(rows, texts, material.decoys, lambda row, text: key_fact(text, row.keywords, row.answer))
        return {"": replace(found.outcome(material), agreement=agreement)}


def check_endpoint(endpoint: Endpoint) -> None:
    """Check the URL of an endpoint, without calling it.

    Raises:
        ConfigError: it is not an http or https URL.
    """
    try:
        parts = urlsplit(endpoint.url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and endpoint.url.isprintable()
    except ValueError:  # brackets without an address, or a port that is no number
        valid = False
    if not valid or " " in endpoint.url:
        raise ConfigError("the endpoint is not an http or https URL", where=endpoint.url, expected="a URL such as http://localhost:8000/v1")


def named(endpoint: Endpoint, seconds: float) -> Endpoint:
    """Return the endpoint with the name of its model, which is the first that the server lists where none is given.

    Args:
        endpoint: the server.
        seconds: timeout of the request.

    Raises:
        ConfigError: the URL is not an http or https URL.
        RunError: the endpoint cannot be reached, refuses, or replies in another form.
    """
    check_endpoint(endpoint)
    if endpoint.model:
        return endpoint
    return Endpoint(endpoint.url, str(_read(_called(endpoint, "models", seconds), endpoint, "data", 0, "id")))


def answers(endpoint: Endpoint, rows: Sequence[Example], config: ServedConfig) -> list[str]:
    """Ask a served model, with greedy decoding.

    Args:
        endpoint: the server.
        rows: the questions, with their pictures.
        config: number of concurrent requests, and their timeout.

    Returns:
        The answers, in the order of the rows.

    Raises:
        ConfigError: the URL is not an http or https URL.
        RunError: the endpoint cannot be reached, refuses, or replies in another form.
    """
    endpoint = named(endpoint, config.seconds)

    def ask(row: Example) -> str:
        body = {"model": endpoint.model, "messages": chat_messages(row), "max_tokens": MAX_NEW_TOKENS, "temperature": 0}
        found = _read(_called(endpoint, "chat/completions", config.seconds, body), endpoint, "choices", 0, "message", "content")
        return str(found or "").strip()

    with ThreadPoolExecutor(config.at_once) as pool:
        return list(pool.map(ask, rows))


def chat_messages(row: Example) -> list[dict[str, Any]]:
    """Return the row's turns, as servers take them, with its pictures as data URIs, each at its place."""
    pictures = (base64.b64encode(encoded(ref.open()).data or b"").decode() for ref in row.images)
    turns = messages(row)
    for turn in turns:
        turn["content"] = [
            part if part["type"] == "text" else {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{next(pictures)}"}}
            for part in turn["content"]
        ]
    return turns


def wait_for(endpoint: Endpoint, alive: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a server that was just started answers.

    Args:
        endpoint: the server.
        alive: whether its process still runs.
        seconds: how long to wait.

    Raises:
        RunError: it has ended, or does not answer in time.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            _called(endpoint, "models", 5)
            return
        except RunError:
            if not alive() or time.monotonic() > until:
                raise
            time.sleep(0.2)


def _called(endpoint: Endpoint, path: str, seconds: float, body: Mapping[str, Any] | None = None) -> Any:
    url = f"{endpoint.url.rstrip('/')}/{path}"
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return json.loads(reply.read(LARGEST))
    except urllib.error.HTTPError as error:
        fix = "look at the server's log; give the model's name with --served-model"
        if error.code in (401, 403):
            fix = f"put the server's key into the environment variable {KEY}"
        raise RunError("the server refuses the request", where=url, expected="status 200", got=f"status {error.code}", fix=fix) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        fix = "start the server, and give its URL up to /v1"
        raise RunError("the server cannot be reached", where=url, got=str(reason) or type(error).__name__, fix=fix) from None
    except (ValueError, RecursionError) as error:
        fix = "give the URL of an OpenAI-compatible server, up to /v1"
        raise RunError("the server does not reply with JSON", where=url, expected="JSON", got=type(error).__name__, fix=fix) from None


def _read(reply: Any, endpoint: Endpoint, *path: str | int) -> Any:
    try:
        for step in path:
            reply = reply[step]
    except (KeyError, IndexError, TypeError):
        wanted = ".".join(map(str, path))
        raise RunError("the server replies in another form", where=endpoint.url, expected=f"a reply with {wanted}", got="none") from None
    return reply
