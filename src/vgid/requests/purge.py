"""Removal of what a run needed only while it lasted, and a list of what remains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import MARK
from vgid.errors import OutputError
from vgid.requests.files import RECORD, WORK

TEMPORARY = {
    WORK: "state, checkpoints, adapter, neutral rows and their answers",
    "checkpoint": "training state",
    "answers": "answers of the models",
    "logs": "logs of a tracker",
    "data": "rows of the demo",
}
"""Folders that are removed, and what each holds."""
KEPT = {
    "adapter": "the difference to the model before unlearning; anybody who has both models can compute it",
    "merged": "the model that forgot",
    "base": "a model that still knows",
    "retrained": "a model that never knew",
    RECORD: "the record",
}
"""What each of the things that remain is."""


@dataclass(frozen=True)
class PurgeResult:
    """What a purge removed.

    Attributes:
        run: the run's folder.
        removed: paths below the folder, and what each was; in a dry run what would be removed.
        remains: names in the folder that stay, and what each is.
    """

    run: str
    removed: tuple[tuple[str, str], ...]
    remains: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `vgid purge --json` prints (schema `vgid.purge/1`)."""
        return {"schema": "vgid.purge/1", **asdict(self)}


def purge(run: Path, *, dry_run: bool = False) -> PurgeResult:
    """Remove the caches, answers and checkpoints of a run.

    Args:
        run: the folder of any vgid run.
        dry_run: remove nothing.

    Returns:
        What was removed, and what remains.

    Raises:
        OutputError: vgid did not make the folder, or something cannot be removed.
    """
    if not (run / MARK).is_file():
        raise OutputError("the folder was not made by vgid", where=run, expected=f"a file named {MARK} in it", fix="check the path")
    paths = sorted({*(run / name for name in TEMPORARY if (run / name).is_dir()), *_leftovers(run)})
    removed = tuple((path.relative_to(run).as_posix(), TEMPORARY.get(path.name, "left by a process that was killed")) for path in paths)
    for path in () if dry_run else paths:
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            raise OutputError(f"cannot remove it: {error.strerror or error}", where=path, fix="remove it by hand") from error
    remains = sorted(path for path in run.iterdir() if path not in paths)
    return PurgeResult(str(run), removed, tuple((path.name, KEPT.get(path.name, "")) for path in remains))


def _leftovers(run: Path) -> Iterator[Path]:
    """Yield temporary files of killed processes; their names begin with a dot, as `vgid.artifacts` writes them."""
    for path in run.rglob(".*"):
        if path.name != MARK and not any((run / name) in path.parents for name in TEMPORARY):
            yield path
