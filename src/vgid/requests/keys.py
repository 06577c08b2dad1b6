"""The key of a run: what stands in the record for people and rows can be made again only by whoever has it.

A plain digest of a name can be guessed by trying names. HMAC-SHA256 cannot, without the key; destroying the key cuts the record off
from the people for good.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vgid.data.example import Example
from vgid.errors import ConfigError, OutputError

BYTES = 32


class Key:
    """A secret. Each use has a key of its own, derived from it, so that one tells nothing of another."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mac(self, use: str, *parts: str | bytes) -> str:
        """HMAC-SHA256 over parts, in hexadecimal; where one ends and the next begins counts."""
        derived = hmac.new(self._secret, f"vgid/{use}".encode(), hashlib.sha256).digest()
        made = hmac.new(derived, digestmod=hashlib.sha256)
        for part in parts:
            content = part.encode() if isinstance(part, str) else part
            made.update(len(content).to_bytes(8, "big") + content)
        return made.hexdigest()

    def subject(self, name: str) -> str:
        """What stands for a person."""
        return f"s-{self.mac('subject', name)[:20]}"

    def rows(self, examples: Iterable[Example]) -> str:
        """A commitment to rows, pictures included, in any order: who has key and rows can show that these were meant."""
        return self.mac("rows", *sorted(self.mac("row", *_parts(example)) for example in examples))

    def object(self, use: str, value: Any) -> str:
        """Of anything that JSON can tell."""
        return self.mac(use, json.dumps(value, sort_keys=True, default=str))


def _parts(example: Example) -> list[str]:
    words = [example.id, example.question, example.answer, example.subject or "", *example.keywords, *example.tags]
    return [*words, *(ref.fingerprint for ref in example.images)]


def default_key(out: Path) -> Path:
    """Beside the run's folder and not in it, so that the folder can be handed on."""
    return out.with_name(f"{out.name}.key")


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        ConfigError: there is none, or it is too short to be a secret.
    """
    if not path.is_file():
        raise ConfigError("no such key file", where=path, expected="the key of this run", fix="give it with --key")
    content = path.read_bytes().strip()
    if len(content) < BYTES:
        raise ConfigError("the key is too short", where=path, expected=f"at least {BYTES} bytes", got=str(len(content)))
    return Key(content)


def make_key(path: Path) -> Key:
    """Make a key file that only its owner can read.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(BYTES)}\n")
    except OSError as error:
        raise OutputError(f"cannot write the key: {error.strerror or error}", where=path, fix="give another place with --key") from error
    return read_key(path)
