"""Earlier requests that a new one builds upon: their rows, as far as somebody still holds them, and what they were judged by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vgid.attacks.base import sample_rows
from vgid.data.example import Example
from vgid.errors import ConfigError, DataError, RunError
from vgid.requests.files import RECORD, WORK, sha256
from vgid.requests.keys import Key, default_key, read_key
from vgid.requests.manifest import verify
from vgid.requests.record import read_record
from vgid.requests.request import Demand, read_demand

ANCHORS = 0.5
"""Rows of earlier requests that join the forget side, for each row of the new one, at most."""
STATE = Path(WORK) / "state.json"


@dataclass(frozen=True)
class Deletion:
    """An earlier request. `base` names the model that knew, which lay in `knew`; `rows` is None where they are gone, and `why` says so."""

    request: str
    record: str
    commitment: str
    base: str
    knew: Path
    policy: Mapping[str, Any]
    rows: tuple[Example, ...] | None = None
    why: str = ""


@dataclass(frozen=True)
class Chain:
    """Earlier requests, oldest first, and where their rows and keys lie, by request."""

    deletions: tuple[Deletion, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Example]:
        """All rows that are there; their ids name their request, so that none stands twice."""
        return [replace(row, id=f"{each.request}/{row.id}") for each in self.deletions for row in each.rows or ()]

    def anchors(self, new: int, seed: int) -> list[Example]:
        """A sample of them, of all people alike, to be trained beside `new` new rows."""
        rows = self.rows
        return sample_rows(rows, max(1, round(ANCHORS * new)), seed) if rows else []


def read_chain(after: Path, given: Sequence[Path]) -> Chain:
    """The requests up to and including that of a run's folder.

    Args:
        after: the folder of the last one.
        given: request folders; others are sought where their runs found them, as long as `vgid purge` has left the state.

    Raises:
        DataError: there is no record, or a request folder cannot be read.
        RunError: the record, or what it speaks of, was altered.
        ConfigError: a folder given is of no earlier request.
    """
    problems = verify(after, None).problems
    if problems:
        raise RunError("the earlier run was altered since its record was written", where=after, got="\n  ".join(["", *problems]))
    deletions, notes = _deletions(after), _notes(after)
    keys = {deletions[-1].request: default_key(after.resolve()), **{name: Path(path) for name, path in notes.get("keys", {}).items()}}
    demands = [read_demand(folder) for folder in given]
    paths, found = {}, []
    for deletion in deletions:
        key = read_key(keys[deletion.request]) if deletion.request in keys and keys[deletion.request].is_file() else None
        demand = _find(deletion, demands, notes.get("folders", {}), key)
        found.append(_with_rows(deletion, demand, key))
        if demand is not None:
            paths[deletion.request] = str(demand.folder.resolve())
    unused = [demand.folder for demand in demands if str(demand.folder.resolve()) not in paths.values()]
    if unused:
        raise ConfigError("the folder is of no earlier request", where=unused[0], expected=", ".join(d.request for d in deletions))
    return Chain(tuple(found), paths, {name: str(path) for name, path in keys.items()})


def _deletions(after: Path) -> list[Deletion]:
    """What a record tells of its own request and of those before it, oldest first."""
    record, models = read_record(after / RECORD), _notes(after).get("models", {})
    own = record.request.id, sha256(after / RECORD), record.data.commitment, record.model.before.name, record.verification.policy
    earlier = record.sequence.earlier if record.sequence else ()
    told = [*((each.request, each.record, each.commitment, each.base, each.policy) for each in earlier), own]
    return [
        Deletion(request, digest, commitment, base, Path(models.get(request, base)), policy)
        for request, digest, commitment, base, policy in told
    ]


def _notes(after: Path) -> dict[str, Any]:
    if not (after / STATE).is_file():
        return {}
    notes: dict[str, Any] = json.loads((after / STATE).read_text("utf-8"))["notes"]
    return notes


def _find(deletion: Deletion, given: Iterable[Demand], folders: Mapping[str, str], key: Key | None) -> Demand | None:
    for demand in given:
        if demand.request.id == deletion.request or (key is not None and key.rows(demand.rows) == deletion.commitment):
            return demand
    folder = Path(folders[deletion.request]) if deletion.request in folders else None
    if folder is None or not folder.is_dir():
        return None
    try:
        return read_demand(folder)
    except DataError:
        return None


def _with_rows(deletion: Deletion, demand: Demand | None, key: Key | None) -> Deletion:
    if demand is None:
        return replace(deletion, why="its rows are gone, so that nobody can ask for them")
    if key is not None and key.rows(demand.rows) != deletion.commitment:
        return replace(deletion, why="its folder holds other rows than at that time")
    return replace(deletion, rows=demand.rows)
