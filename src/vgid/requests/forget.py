"""`vgid forget` as a function: read everything, then go through the steps; the same call continues a run that was stopped."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgid.artifacts import private
from vgid.errors import ConfigError, RunError
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.requests.files import CHECKS, RECORD, sha256
from vgid.requests.keys import Key, default_key, new_secret, read_key, write_key
from vgid.requests.manifest import manifest_of
from vgid.requests.options import ForgetOptions
from vgid.requests.resolved import ResolvedRun, input_digests, resolve_run
from vgid.requests.state import RunState
from vgid.requests.steps import STEPS, StepContext
from vgid.run_folder import check_output, output_folder

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class ForgetResult:
    """A run that is complete.

    Attributes:
        record: the object of `record.json`.
        sha256: SHA-256 of `record.json`, in hexadecimal.
        key: path of the run's key.
    """

    record: dict[str, Any]
    sha256: str
    key: Path

    @property
    def passed(self) -> bool:
        """Whether the audit passed, and no earlier request fails or is inconclusive under its own policy now."""
        earlier = (self.record["sequence"] or {"earlier": ()})["earlier"]
        return self.record["conclusion"]["status"] == "pass" and not any(each["status"] in ("fail", "inconclusive") for each in earlier)


def forget(options: ForgetOptions, *, stages: Stages) -> ForgetResult:
    """Honour a deletion request: unlearn, evaluate, audit, export, and write a record.

    Everything is written for its owner alone, and nothing of what was asked or answered is written.

    Args:
        options: what to do.
        stages: shows and times what is done.

    Returns:
        The record, its digest, and the path of the key.

    Raises:
        ConfigError: options contradict each other, or the key is missing.
        DataError: the request or another data set cannot be used.
        ModelError: a model cannot be loaded, or does not know what it is to forget.
        OutputError: the folder holds another run, or cannot be written.
        RunError: a step failed; the same call continues from there.
    """
    options = replace(options, out=Path(os.path.realpath(options.out)))  # `resolve` fails where links lead in a circle
    check_output(options.out, options.overwrite, resume=True, inputs=inputs_of(options))
    run = resolve_run(options)
    path = options.key or default_key(options.out)
    found = _find_key(path, given=options.key is not None, continued=(run.work / "state.json").is_file() and not options.overwrite)
    secret = None if found else new_secret()
    key = found or Key(str(secret).encode())
    inputs = input_digests(run, key)
    if not options.overwrite and manifest_of(run.out).is_file() and not (run.work / "state.json").is_file():
        raise RunError("the run in the folder is complete, and was purged", where=run.out, fix="choose another --out, or add --overwrite")

    def goes_on() -> bool:
        return (run.out / CHECKS / "preflight.json").is_file()

    with private(), output_folder(run.out, keep=not options.overwrite, goes_on=goes_on):
        run.out.chmod(0o700)
        if secret:
            write_key(path, secret)
        try:
            _run_steps(StepContext(run, key, _open_state(run, key, path, inputs), stages))
        except BaseException:
            if secret and not goes_on():  # nothing was written that the key belongs to
                path.unlink(missing_ok=True)
            raise
    return ForgetResult(read_json(options.out / RECORD), sha256(options.out / RECORD), path)


def inputs_of(options: ForgetOptions) -> list[object]:
    """Return the paths that a run reads; none of them may lie in its folder."""
    models = [options.model, options.reference, options.after, options.continued, options.earlier]
    return [*models, options.request, options.retain, options.policy, options.key]


def _find_key(path: Path, *, given: bool, continued: bool) -> Key | None:
    if path.is_file() or given:
        return read_key(path)
    if continued:
        raise ConfigError(
            "the key of the run in the folder is missing", where=path, fix="give it with --key, or start again with --overwrite"
        )
    return None


def _open_state(run: ResolvedRun, key: Key, key_file: Path, inputs: dict[str, str]) -> RunState:
    request, previous = run.request_id(key), run.previous
    notes = {
        "folders": {**previous.folders, request: str(run.request.folder.resolve())},
        "keys": {**previous.keys, request: str(key_file.resolve())},
        "models": {**{each.request: str(each.base_folder.resolve()) for each in previous.deletions}, request: str(run.model.resolve())},
    }
    state = RunState(run.out, run.work / "state.json", inputs, notes)
    state.drop(set(state.content["steps"]) - set(STEPS))
    state.save()
    return state


def _run_steps(context: StepContext) -> None:
    """Do the first step that is not finished and all after it, since each may read what the ones before it wrote."""
    names, state = list(STEPS), context.state
    first = next((place for place, name in enumerate(names) if not state.is_finished(name)), len(names))
    if 0 < first < len(names):
        log.info("continuing with %r; %d of %d steps are finished", names[first], first, len(names))
    state.drop(names[first:])
    for name in names[first:]:
        started = time.monotonic()
        state.finish(name, STEPS[name](context), started)
