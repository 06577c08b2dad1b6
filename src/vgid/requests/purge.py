"""Removing what a run needed only while it lasted, and saying what remains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import MARK
from vgid.errors import OutputError
from vgid.requests.files import RECORD, WORK

NEEDLESS = {
    WORK: "state, checkpoints, adapter, neutral rows and their answers",
    "checkpoint": "training state",
    "answers": "what models answered",
    "logs": "a tracker's",
    "data": "the demo's rows",
}
KEPT = {
    "adapter": "the difference to the model before: whoever has both models has it anyway",
    "merged": "the model that forgot",
    "base": "a model that still knows",
    "retrained": "a model that never knew",
    RECORD: "the record",
}


@dataclass(frozen=True)
class Purged:
    """Paths below the run's folder, and what each is."""

    run: str
    removed: tuple[tuple[str, str], ...]
    remains: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"schema": "vgid.purge/1", **asdict(self)}


def purge(run: Path, *, dry_run: bool = False) -> Purged:
    """Remove a run's caches.

    Raises:
        OutputError: the folder was made by nobody we know, or something cannot be removed.
    """
    if not (run / MARK).is_file():
        raise OutputError("the folder was not made by vgid", where=run, expected=f"a file named {MARK} in it", fix="check the path")
    doomed = sorted({*_needless(run), *_leftovers(run)})
    removed = tuple((path.relative_to(run).as_posix(), NEEDLESS.get(path.name, "left by a process that was killed")) for path in doomed)
    for path in () if dry_run else doomed:
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove it: {error.strerror or error}", where=path, fix="remove it yourself") from error
    remains = sorted(path for path in run.iterdir() if path not in doomed)
    return Purged(str(run), removed, tuple((path.name, KEPT.get(path.name, "")) for path in remains))


def _needless(run: Path) -> Iterator[Path]:
    yield from (run / name for name in NEEDLESS if (run / name).is_dir())


def _leftovers(run: Path) -> Iterator[Path]:
    """Temporary names: a dot, the name of what was to be written, and something random."""
    for path in run.rglob(".*"):
        if path.name != MARK and not any((run / name) in path.parents for name in NEEDLESS):
            yield path
