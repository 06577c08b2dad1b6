"""Deletions that earlier runs made in the model a new run starts from: their rows, where they still exist, and their policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vgid.attacks.base import sample_rows
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.errors import ConfigError, DataError, RunError
from vgid.requests.files import MERGED, RECORD, WORK, sha256
from vgid.requests.keys import Key, default_key, read_key
from vgid.requests.manifest import verify_record
from vgid.requests.record import read_record
from vgid.requests.request import FILE, ParsedRequest, parse_request, read_details
from vgid.requests.state import read_state
from vgid.settings import DataConfig

ANCHOR_SHARE = 0.5
"""Anchor rows (rows of previous deletions on the forget side) for each new row, at most; chosen by hand."""
STATE = Path(WORK) / "state.json"


@dataclass(frozen=True)
class PreviousDeletion:
    """One deletion that an earlier run made.

    Attributes:
        request: id of its request.
        record: SHA-256 of its `record.json`.
        commitment: keyed digest of its rows.
        base: name of the model that knew the rows.
        base_folder: folder of that model at that time.
        policy: the policy it was audited by.
        rows: its rows; None where they no longer exist, or have changed.
        problem: why there are no rows.
    """

    request: str
    record: str
    commitment: str
    base: str
    base_folder: Path
    policy: Mapping[str, Any]
    rows: tuple[Example, ...] | None = None
    problem: str = ""


@dataclass(frozen=True)
class PreviousDeletions:
    """All deletions before a run, oldest first.

    Attributes:
        deletions: what was deleted.
        folders: paths of their request folders, by request id.
        keys: paths of their runs' key files, by request id.
        readings: how their rows were read, by request id, where otherwise than by default (`noted_reading`).
    """

    deletions: tuple[PreviousDeletion, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Example]:
        """All rows that still exist; the request's id is put before a row's own, so that ids stay unique."""
        return [replace(row, id=f"{each.request}/{row.id}") for each in self.deletions for row in each.rows or ()]

    def anchor_rows(self, new_rows: int, seed: int) -> list[Example]:
        """Draw rows that are trained on again, on the forget side, so that the new deletion does not undo previous ones.

        Args:
            new_rows: number of rows of the new request.
            seed: random seed of the sample.

        Returns:
            At most `ANCHOR_SHARE * new_rows` rows, spread evenly over people; at least one, where any row still exists.
        """
        rows = self.rows
        return sample_rows(rows, max(1, round(ANCHOR_SHARE * new_rows)), seed) if rows else []


def noted_reading(request: str, reading: DataConfig) -> dict[str, str]:
    """The note of how a request's rows were read, by its id; none where by default."""
    return {request: reading.model_dump_json()} if reading != DataConfig() else {}


def noted_root(request: str, config: RunConfig) -> dict[str, str]:
    """The note of the run's folder of pictures, by the request's id: the record does not name it."""
    return {request: str(Path(config.data.image_root).resolve())} if config.data.image_root else {}


def without_paths(config: RunConfig) -> dict[str, Any]:
    """Settings as a record states them: a folder of pictures may have a person's name, and is left out."""
    values = config.model_dump(mode="json")
    return {**values, "data": {**values["data"], "image_root": None}}


def reading_of(notes: Mapping[str, Mapping[str, str]], request: str | None, default: DataConfig) -> DataConfig:
    """How a request's rows are read: as its run noted, else as `default` says.

    Args:
        notes: `notes_of` the run.
        request: id of the request; None where it is not known.
        default: what holds without a note.
    """
    note = notes.get("readings", {}).get(request or "")
    return DataConfig.model_validate_json(note) if note else default


def read_previous_deletions(after: Path, given: Sequence[Path], reading: DataConfig | None = None) -> PreviousDeletions:
    """Read the deletions up to and including that of a run's folder.

    Args:
        after: the folder of the last run.
        given: request folders. Others are looked for where their runs found them, as long as `vgid purge` has not removed that note.
        reading: how rows are read where neither `request.yaml` nor such a note says it; None for the defaults.

    Raises:
        DataError: there is no record, or a given request folder cannot be read.
        RunError: the record or a file it names was altered.
        ConfigError: a given folder does not belong to an earlier request.
    """
    problems = verify_record(after, None).problems
    if problems:
        raise RunError("the earlier run was altered since its record was written", where=after, got="\n  ".join(["", *problems]))
    deletions, notes = _deletions(after), notes_of(after)
    keys = {deletions[-1].request: default_key(after.resolve()), **{name: Path(path) for name, path in notes.get("keys", {}).items()}}
    default = reading or DataConfig()
    requests = [parse_request(folder, reading_of(notes, read_details(folder / FILE).id, default)) for folder in given]
    paths, found, readings = {}, [], dict(notes.get("readings", {}))
    for deletion in deletions:
        key = read_key(keys[deletion.request]) if deletion.request in keys and keys[deletion.request].is_file() else None
        noted = reading_of(notes, deletion.request, default)
        parsed = _find(deletion, requests, notes.get("folders", {}), key, noted)
        found.append(_with_rows(deletion, parsed, key))
        if parsed is not None:
            paths[deletion.request] = str(parsed.folder.resolve())
            readings |= noted_reading(deletion.request, parsed.reading)
    unused = [parsed.folder for parsed in requests if str(parsed.folder.resolve()) not in paths.values()]
    if unused:
        raise ConfigError(
            "the folder does not belong to an earlier request", where=unused[0], expected=", ".join(d.request for d in deletions)
        )
    return PreviousDeletions(tuple(found), paths, {name: str(path) for name, path in keys.items()}, readings)


def model_before(run: Path, request: ParsedRequest) -> str:
    """Return the model that a run of the same request started from, so that another run can go on from its result.

    Args:
        run: the folder of the run.
        request: the request.

    Raises:
        DataError: there is no record.
        RunError: the record or a file it names was altered.
        ConfigError: the run was about another request, or is one of a sequence, or its model is no longer where it was.
    """
    if problems := verify_record(run, None).problems:
        raise RunError("the run to continue was altered since its record was written", where=run, got="\n  ".join(["", *problems]))
    record, notes = read_record(run / RECORD), notes_of(run)
    if record.exact is not None:
        raise ConfigError("a model that was trained again cannot be continued", where=run, fix="repeat vgid retrain with other settings")
    if record.sequence is not None:
        raise ConfigError("a run that came after others cannot be continued", where=run, fix="repeat it with --after and other settings")
    path = Path(notes.get("keys", {}).get(record.request.id, default_key(run.resolve())))
    if path.is_file() and read_key(path).rows(request.everything) != record.data.commitment:
        raise ConfigError("the run to continue was about another request", where=run, fix="give the request that it was about")
    model = notes.get("models", {}).get(record.request.id, record.model.before.name)
    if not Path(model).is_dir():
        raise ConfigError("the model before that run is no longer there", where=run, fix="start again with --model")
    return str(model)


def _deletions(after: Path) -> list[PreviousDeletion]:
    """Return what a record states about its own request and those before it, oldest first."""
    record, models = read_record(after / RECORD), notes_of(after).get("models", {})
    if record.exact is not None:
        raise ConfigError(
            "a model that was trained again has no earlier requests", where=after, fix=f"start from it with --model {after / MERGED}"
        )
    own = record.request.id, sha256(after / RECORD), record.data.commitment, record.model.before.name, record.verification.policy
    earlier = record.sequence.earlier if record.sequence else ()
    stated = [*((each.request, each.record, each.commitment, each.base, each.policy) for each in earlier), own]
    return [
        PreviousDeletion(request, digest, commitment, base, Path(models.get(request, base)), policy)
        for request, digest, commitment, base, policy in stated
    ]


def notes_of(run: Path) -> dict[str, Any]:
    """Return where a run found its inputs: paths by kind and request id. Nothing, once `vgid purge` has removed them."""
    if not (run / STATE).is_file():
        return {}
    notes: dict[str, Any] = read_state(run / STATE)["notes"]
    return notes


def _find(
    deletion: PreviousDeletion, given: Iterable[ParsedRequest], folders: Mapping[str, str], key: Key | None, reading: DataConfig
) -> ParsedRequest | None:
    """Return the request of a deletion: one that was given, or the folder that its run noted."""
    for parsed in given:
        if parsed.details.id == deletion.request or (key is not None and key.rows(parsed.everything) == deletion.commitment):
            return parsed
    folder = Path(folders[deletion.request]) if deletion.request in folders else None
    if folder is None or not folder.is_dir():
        return None
    try:
        return parse_request(folder, reading)
    except DataError:
        return None


def _with_rows(deletion: PreviousDeletion, parsed: ParsedRequest | None, key: Key | None) -> PreviousDeletion:
    if parsed is None:
        return replace(deletion, problem="its rows no longer exist, so they cannot be asked")
    if key is not None and key.rows(parsed.everything) != deletion.commitment:
        return replace(deletion, problem="the rows in its folder have changed since")
    return replace(deletion, rows=parsed.rows)
