"""What `vgid forget` does: read everything, then go through the steps, and go on where it was stopped."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgid.artifacts import check_output, prepare_output, private
from vgid.errors import ConfigError, RunError
from vgid.progress import Stages
from vgid.requests.files import RECORD, SEAL, sha256
from vgid.requests.keys import Key, default_key, make_key, read_key
from vgid.requests.outcomes import read_json
from vgid.requests.resolved import Job, Order, inputs, read_job
from vgid.requests.state import State
from vgid.requests.steps import STEPS

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class Finished:
    """A run that is done: its record, the SHA-256 of `record.json`, and where the key lies."""

    record: dict[str, Any]
    sha256: str
    key: Path


def forget_command(
    order: Order, *, key: Path | None = None, overwrite: bool = False, show_forgotten: bool = False, stages: Stages
) -> Finished:
    """Honour a request. Everything is written for its owner alone; nothing of what was asked or answered is in it.

    Args:
        order: what to do.
        key: the key file; None for one beside the run's folder, made where there is none.
        overwrite: replace what an earlier run left in the folder.
        show_forgotten: let the preflight show a row on the screen.
        stages: shows and times what is done.

    Raises:
        VgidError: bad input, or a step that failed; the same command goes on from there.
    """
    order = replace(order, out=order.out.resolve())
    check_output(order.out, overwrite, resume=True)
    job = read_job(order)
    with private(order.out):
        path = key or default_key(order.out)
        secret = _key(path, given=key is not None, going_on=(job.work / "state.json").is_file() and not overwrite)
        found = inputs(job, secret)
        prepare_output(order.out, keep=not overwrite)
        state = _state(job, secret, path, found)
        _run(job, secret, state, stages, show_forgotten)
    return Finished(read_json(order.out / RECORD), sha256(order.out / RECORD), path)


def _key(path: Path, *, given: bool, going_on: bool) -> Key:
    if path.is_file() or given:
        return read_key(path)
    if going_on:
        raise ConfigError("the key of the run in the folder is gone", where=path, fix="give it with --key, or begin anew with --overwrite")
    return make_key(path)


def _state(job: Job, key: Key, path: Path, found: dict[str, str]) -> State:
    own = job.request_id(key)
    notes = {
        "folders": {**job.chain.folders, own: str(job.demand.folder.resolve())},
        "keys": {**job.chain.keys, own: str(path.resolve())},
        "models": {**{each.request: str(each.knew.resolve()) for each in job.chain.deletions}, own: str(job.model.resolve())},
    }
    if (job.out / SEAL).is_file() and not (job.work / "state.json").is_file():
        raise RunError("the run in the folder is complete, and purged", where=job.out, fix="choose another --out, or add --overwrite")
    state = State(job.out, job.work / "state.json", found, notes)
    for step in set(state.content["steps"]) - set(STEPS):
        state.content["steps"].pop(step)
    state.save()
    return state


def _run(job: Job, key: Key, state: State, stages: Stages, show: bool) -> None:
    """Steps that are done stay done, up to the first that is not; all after it are done again."""
    names = list(STEPS)
    todo = next((place for place, name in enumerate(names) if not state.done(name)), len(names))
    if 0 < todo < len(names):
        log.info("going on with %r; %d of %d steps were done", names[todo], todo, len(names))
    state.drop_from(names[todo:])
    for name in names[todo:]:
        started = time.monotonic()
        state.finish(name, STEPS[name](job, key, state, stages, show), started)
