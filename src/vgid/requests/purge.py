"""Removal of what a run needed only while it lasted, and a list of what remains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vgid.requests.files import RECORD, WORK
from vgid.run_folder import PREVIOUS, check_made_by_vgid, discard, unfinished_files, written_files

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
    PREVIOUS: "the results that a run which has not finished is to replace",
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
    """Remove the caches, answers and checkpoints of a run, as far as vgid wrote them.

    Args:
        run: the folder of any vgid run.
        dry_run: remove nothing.

    Returns:
        What was removed, and what remains.

    Raises:
        OutputError: vgid did not make the folder, or something cannot be removed.
    """
    check_made_by_vgid(run, fix=f"check the path; in a folder of an earlier version, remove {', '.join(TEMPORARY)} by hand")
    written, unfinished = written_files(run), unfinished_files(run)
    paths = [run / name for name in TEMPORARY if any(run / name in path.parents for path in written)]
    paths = sorted([*paths, *(path for path in unfinished if not any(folder in path.parents for folder in paths))])
    removed = tuple((path.relative_to(run).as_posix(), TEMPORARY.get(path.name, "left by a process that was killed")) for path in paths)
    gone = {path for path in written if any(path == each or each in path.parents for each in paths)}
    kept = {path.relative_to(run).parts[0] for path in run.rglob("*") if not path.is_dir() and path not in gone}
    for path in () if dry_run else paths:
        discard(path)
    return PurgeResult(str(run), removed, tuple((name, KEPT.get(name, "")) for name in sorted(kept)))
