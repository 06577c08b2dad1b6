"""`vgid forget` as a function: read everything, then go through the steps; the same call continues a run that was stopped."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vgid.artifacts import private
from vgid.errors import ConfigError, OutputError
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.requests.files import CHECKS, RECORD, WORK, sha256
from vgid.requests.keys import Key, default_key, new_secret, read_key, write_key
from vgid.requests.manifest import manifest_of
from vgid.requests.options import ForgetOptions
from vgid.requests.previous import noted_reading, noted_root
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

    def go(key: Key, key_file: Path) -> None:
        context = StepContext(run, key, _open_state(run, key, key_file, input_digests(run, key)), stages)
        run_steps({name: partial(step, context) for name, step in STEPS.items()}, context.state)

    return go_on(run.out, options.key, go, begun="preflight.json", overwrite=options.overwrite)


def go_on(out: Path, key_file: Path | None, go: Callable[[Key, Path], None], *, begun: str, overwrite: bool) -> ForgetResult:
    """Begin a run with a record in a folder, or continue the one there, with its key.

    Args:
        out: the run's folder.
        key_file: file with its key; None for one beside the folder, which is made where there is none.
        go: takes the key and its file, and does the steps.
        begun: file below `checks`; once it is there, what was written is kept after an error.
        overwrite: replace what an earlier run left.

    Returns:
        The record, its digest, and the path of the key.

    Raises:
        ConfigError: the key is missing.
        OutputError: the run is complete, and was purged.
    """
    path, state = key_file or default_key(out), out / WORK / "state.json"
    found = _find_key(path, given=key_file is not None, continued=state.is_file() and not overwrite)
    secret = None if found else new_secret()
    key = found or Key(str(secret).encode())
    if not overwrite and manifest_of(out).is_file() and not state.is_file():
        raise OutputError("the run in the folder is complete, and was purged", where=out, fix="choose another --out, or add --overwrite")

    def goes_on() -> bool:
        return (out / CHECKS / begun).is_file()

    with private(), output_folder(out, keep=not overwrite, goes_on=goes_on):
        out.chmod(0o700)
        if secret:
            write_key(path, secret)
        try:
            go(key, path)
        except BaseException:
            if secret and not goes_on():  # nothing was written that the key belongs to
                path.unlink(missing_ok=True)
            raise
    return ForgetResult(read_json(out / RECORD), sha256(out / RECORD), path)


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
    start = run.options.after or run.options.continued
    notes = {
        "folders": {**previous.folders, request: str(run.request.folder.resolve())},
        "keys": {**previous.keys, request: str(key_file.resolve())},
        "models": {**{each.request: str(each.base_folder.resolve()) for each in previous.deletions}, request: str(run.model.resolve())},
        "retain": {request: str(run.options.retain.resolve())} if run.options.retain else {},
        "readings": {**previous.readings, **noted_reading(request, run.request.reading)},
        "image roots": noted_root(request, run.config),
        "runs": {request: str(start.resolve())} if start else {},
    }
    return RunState(run.out, run.work / "state.json", inputs, notes)


def run_steps(steps: Mapping[str, Callable[[], Sequence[Path]]], state: RunState) -> None:
    """Do the first step that is not finished and all after it, since each may read what the ones before it wrote.

    Args:
        steps: what to do, in this order; each returns the files that it wrote.
        state: what is finished.
    """
    state.drop(set(state.content["steps"]) - set(steps))
    state.save()
    names = list(steps)
    first = next((place for place, name in enumerate(names) if not state.is_finished(name)), len(names))
    if 0 < first < len(names):
        log.info("continuing with %r; %d of %d steps are finished", names[first], first, len(names))
    state.drop(names[first:])
    for name in names[first:]:
        started = time.monotonic()
        state.finish(name, steps[name](), started)
