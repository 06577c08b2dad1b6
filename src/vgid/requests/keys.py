"""The secret key of a run: only its holder can recompute the references to people and rows in the record.

A plain digest of a name can be found by trying names. An HMAC-SHA256 cannot, without the key; once the key is destroyed, nobody can
connect the record with the people any more.
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
from vgid.errors import ConfigError, cannot_write

BYTES = 32
"""Length of a secret: the output of SHA-256, the least length that RFC 2104 recommends for a key of HMAC."""
SUBJECT_DIGITS = 20
"""Hexadecimal digits of a subject's reference: 80 bits, short enough to read, and without chance collisions."""


class Key:
    """A secret. For each use it derives another key, so that a value of one use says nothing about another use.

    Args:
        secret: at least `BYTES` bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mac(self, use: str, *parts: str | bytes) -> str:
        """Return the HMAC-SHA256 of parts, in hexadecimal.

        Args:
            use: what the value is for; see the class.
            *parts: what it is computed over. Their lengths count, so that parts cut elsewhere give another value.
        """
        derived = hmac.new(self._secret, f"vgid/{use}".encode(), hashlib.sha256).digest()
        code = hmac.new(derived, digestmod=hashlib.sha256)
        for part in parts:
            content = part.encode() if isinstance(part, str) else part
            code.update(len(content).to_bytes(8, "big") + content)
        return code.hexdigest()

    def subject(self, name: str) -> str:
        """Return the reference to a person that the record shows in place of the name."""
        return f"s-{self.mac('subject', name)[:SUBJECT_DIGITS]}"

    def rows(self, examples: Iterable[Example]) -> str:
        """Return a commitment to rows in any order, pictures included: the holder of key and rows can show that these were meant."""
        return self.mac("rows", *sorted(self.mac("row", *_parts(example)) for example in examples))

    def ordered(self, examples: Iterable[Example]) -> str:
        """Return a commitment to rows in this order, pictures included."""
        return self.mac("ordered rows", *(self.mac("row", *_parts(example)) for example in examples))

    def value(self, use: str, value: Any) -> str:
        """Return the HMAC-SHA256 of a value's JSON, in hexadecimal."""
        return self.mac(use, json.dumps(value, sort_keys=True, default=str))


def _parts(example: Example) -> list[str]:
    texts = [example.id, example.question, example.answer, example.subject or "", *example.keywords, *example.tags]
    texts += [each for turn in example.context for each in turn]
    return [*texts, *(ref.fingerprint for ref in example.images)]


def default_key(out: Path) -> Path:
    """Return the default place of a run's key: beside its folder and not in it, so that the folder can be handed on."""
    return out.with_name(f"{out.name}.key")


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        ConfigError: there is no such file, or it is too short for a secret.
    """
    if not path.is_file():
        raise ConfigError("no such key file", where=path, expected="the key of this run", fix="check the path")
    content = path.read_bytes().strip()
    if len(content) < BYTES:
        raise ConfigError("the key is too short", where=path, expected=f"at least {BYTES} bytes", got=str(len(content)))
    return Key(content)


def new_secret() -> str:
    """Return a new secret, as `write_key` writes it."""
    return secrets.token_hex(BYTES)


def write_key(path: Path, secret: str) -> None:
    """Write a key file that only its owner can read.

    Raises:
        OutputError: it cannot be written, or is there already, and then it is left alone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{secret}\n")
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        raise cannot_write(path, error, "key", fix="choose another --out, or make a key yourself and name it with --key") from error
