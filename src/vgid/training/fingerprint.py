"""What a run depends on, as digests: a checkpoint continues the run it was written by, and no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vgid import processes
from vgid.config import RunConfig
from vgid.data.example import Example, ImageRef
from vgid.errors import OutputError

Fingerprint = Mapping[str, str]
"""Part of the run to its digest."""
HARMLESS: dict[str, Any] = {"training": {"max_tokens", "micro_batch", "checkpoint_every", "shard", "gradient_checkpointing"}}
"""Settings that change how a run is carried out, but not its result."""
LOOKED_AT = 8
"""Values of each parameter that go into the digest of a model; reading all of them would take as long as loading the model."""


def fingerprint(config: RunConfig, forget: Sequence[Example], retain: Sequence[Example], model: Any) -> Fingerprint:
    """Compute digests of what a run depends on.

    Args:
        config: settings, the seed among them.
        forget: rows to forget.
        retain: rows to keep.
        model: the untrained model.

    Returns:
        Digests of `settings`, `forget rows`, `retain rows` and `model`.
    """
    settings = config.model_dump(mode="json", exclude=HARMLESS)
    return {
        "settings": _digest([json.dumps(settings, sort_keys=True)]),
        "forget rows": rows_digest(forget),
        "retain rows": rows_digest(retain),
        "model": processes.from_first(_digest(_model(model))),
    }


def rows_digest(examples: Iterable[Example]) -> str:
    """A digest of examples in their order."""
    return _digest(map(_row, examples))


def files_digest(paths: Iterable[Path]) -> str:
    """A digest of what files hold, in the order given."""
    return _digest(path.read_bytes() for path in paths)


def check_same(then: Fingerprint, now: Fingerprint, where: object) -> None:
    """Make sure that a checkpoint was written by this very run.

    Args:
        then: fingerprint in the checkpoint.
        now: fingerprint of the run.
        where: the checkpoint, for the message.

    Raises:
        OutputError: naming what differs.
    """
    other = [name for name in now if then.get(name) != now[name]]
    if other:
        raise OutputError(
            "the checkpoint was written by another run",
            where=where,
            expected="the same settings, rows, model and seed",
            got=f"other {', '.join(other)}",
            fix="resume with what the run was started with, or begin anew with --overwrite",
        )


def _row(example: Example) -> str:
    pictures = [_picture(ref) for ref in example.images]
    parts = [example.id, example.question, example.answer, example.subject, example.tags, pictures]
    return json.dumps([*parts, example.context] if example.context else parts)


def _picture(ref: ImageRef) -> str:
    # Reading every file would take long; a folder may move, so its name does not count.
    if ref.path is None:
        return ref.fingerprint  # worked out once
    return f"{ref.path.name}:{ref.path.stat().st_size if ref.path.is_file() else None}"


def _model(model: Any) -> Iterable[str]:
    for name, parameter in model.named_parameters():
        values = processes.first_values(parameter.detach(), LOOKED_AT).tolist()
        yield f"{name} {tuple(parameter.shape)} {parameter.dtype} {values}"


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(hashlib.blake2b(part if isinstance(part, bytes) else part.encode(), digest_size=16).digest())
    return digest.hexdigest()
