"""Folders of runs: a journal of the files that vgid wrote, so that nothing else is ever removed, and old results that stay until the new
ones are whole.

The journal, `.vgid-run`, is a text file: a header, then one line for each file, `+ "path"` for one that was written and `- "path"` for one
that is no longer ours. Lines are only ever appended, so several processes may write to one run, and a process that is killed leaves a
journal that is still right. A path that ends in `/` stands for everything below a folder that another library fills.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vgid.errors import OutputError, cannot_write
from vgid.reading import check_text

MARK = ".vgid-run"
"""Name of the journal; a folder with one was made by vgid."""
PREVIOUS = ".vgid-previous"
"""Folder, in a run's folder, of the results that the run is about to replace; it goes once the new ones are whole."""
SCHEMA = "vgid.run/1"
HEADER = f"{SCHEMA}: files that vgid wrote here; `--overwrite` and `vgid purge` remove these and nothing else."
ACTIVE = "VGID_RUN_FOLDERS"
"""Environment variable with the folders of the runs in progress, a JSON list, outermost first: a run's other processes note files, too."""
NAMED = 10
"""Files of others that an error names."""
_UNFINISHED = re.compile(r"^\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp$")
"""Name of a file that is being written (`vgid.artifacts`); a process that was killed leaves it."""


@dataclass
class _Journal:
    """What a journal lists, as paths below the run's folder; `known` is False for a folder of a release that kept no journal."""

    known: bool = True
    files: set[str] = field(default_factory=set)
    trees: set[str] = field(default_factory=set)

    def covers(self, name: str) -> bool:
        if name == MARK or name in self.files or any(name.startswith(tree) for tree in self.trees):
            return True
        folder, _, last = name.rpartition("/")
        unfinished = _UNFINISHED.match(last)
        return bool(unfinished) and (f"{folder}/" if folder else "") + unfinished["name"] in {*self.files, MARK}  # type: ignore[index]


class _Contents(NamedTuple):
    """The files of a run's folder, links among them: those that vgid wrote, and those of others."""

    ours: list[Path]
    others: list[Path]


_noted: dict[Path, _Journal] = {}
"""What this process has noted, by run in progress, so that a file is noted once."""


def check_output(out: Path, overwrite: bool, resume: bool = False, inputs: Iterable[object] = ()) -> None:
    """Make sure that a run may write to a folder; nothing is changed.

    Args:
        out: the output folder.
        overwrite: whether earlier results may be replaced.
        resume: whether the run continues from what the folder holds.
        inputs: what the run reads; of these, the paths that exist are compared, and hub ids, rows and loaded models are left alone.

    Raises:
        OutputError: the folder holds results that are neither to be replaced nor continued from, files that vgid did not write, or an input
            of the run; or it cannot be made.
    """
    check_text(str(out), OutputError)
    flat = (each for given in inputs for each in (given if isinstance(given, tuple | list) else (given,)))
    _check_inputs(out, [Path(each) for each in flat if isinstance(each, str | Path)])
    if not out.is_dir():
        _check_can_be_made(out)
        return
    if not any(child.name != MARK for child in out.iterdir()):
        return
    if not (overwrite or resume):
        ways = "choose another --out, or add --overwrite"
        if (out / "checkpoint").is_dir():
            ways = "add --resume to go on with the run in it; or choose another --out, or add --overwrite"
        raise OutputError("the output folder is not empty", where=str(out), fix=ways)
    check_made_by_vgid(out, fix="choose another --out, or empty the folder yourself")
    if not overwrite:
        return
    others = [path.relative_to(out).as_posix() for path in _contents(out).others]
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise OutputError(
            "the output folder holds files that vgid did not write, so it is not replaced",
            where=str(out),
            got=", ".join(others[:NAMED]) + more,
            fix="move them elsewhere, or choose another --out",
        )


def check_made_by_vgid(folder: Path, *, fix: str) -> None:
    """Make sure that a folder was made by vgid and says which of its files vgid wrote.

    Raises:
        OutputError: it was not, or by an early version that kept no journal.
    """
    if not (folder / MARK).is_file():
        problem = "the folder was not made by vgid, so nothing in it is changed"
        raise OutputError(problem, where=str(folder), expected=f"a file named {MARK} in it", fix=fix)
    if not _read_journal(folder).known:
        problem = "the folder does not say which of its files vgid wrote, so nothing in it is changed"
        raise OutputError(
            problem, where=str(folder / MARK), expected=f"a journal of schema {SCHEMA}", got="one of an earlier version", fix=fix
        )


def _check_inputs(out: Path, inputs: Sequence[Path]) -> None:
    """Compare paths as they are written and as links resolve them; an input may be the folder itself, too."""
    folders = (_absolute(out), _real(out))
    for path in (each for each in inputs if os.path.lexists(each)):
        if any(each.is_relative_to(folder) for each in (_absolute(path), _real(path)) for folder in folders):
            raise OutputError(
                "an input of the run lies in the output folder",
                where=str(path),
                expected=f"inputs outside of {out}",
                fix="choose another --out",
            )


def _check_can_be_made(out: Path) -> None:
    there = next(each for each in (out, *out.absolute().parents) if os.path.lexists(each))
    what, fix = "the output folder cannot be made", "choose another --out"
    if not there.is_dir():
        raise OutputError(what, where=str(out), expected="a path below a folder", got=f"{there} is no folder", fix=fix)
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(what, where=str(out), expected="permission to write", got=f"{there} cannot be written to", fix=fix)


@contextmanager
def output_folder(out: Path | None, *, keep: bool = False, goes_on: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Make a run's folder, and note what is written to it within the `with` statement.

    Call it after `check_output` and after all input has been read. Results that are replaced are moved into a subfolder, and removed when
    the statement ends without an error. When it ends with one, everything is as it was before, unless the run can go on from what it left.

    Args:
        out: the output folder; with None nothing is done.
        keep: go on with what an earlier run left in it.
        goes_on: whether a run that failed has left something to go on from.

    Raises:
        OutputError: the folder cannot be written to.
    """
    if out is None:
        yield
        return
    folder = _absolute(out)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    fresh = not (keep and (folder / MARK).is_file())
    note(folder / MARK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh and (folder / MARK).is_file():
            _set_aside(folder)
        if fresh:
            _write_journal(folder, HEADER.encode())
    except OutputError:
        raise
    except OSError as error:
        raise cannot_write(out, error, "output folder") from error
    try:
        with noting(folder):
            yield
    except BaseException:  # also when a signal stops the run
        if fresh and not goes_on():
            _put_back(folder, made)
        raise
    _drop(folder / PREVIOUS)  # not above: the new results are whole, and stay even if an old one cannot be removed


@contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Note what is written to a run's folder within the `with` statement; where the folder has no journal, nothing is noted."""
    folder = _absolute(folder)
    if not (folder / MARK).is_file():
        yield
        return
    outer = _active()
    os.environ[ACTIVE] = json.dumps([str(each) for each in (*reversed(outer), folder)])
    try:
        yield
    finally:
        _noted.pop(folder, None)
        os.environ[ACTIVE] = json.dumps([str(each) for each in reversed(outer)])
        _close_trees(folder)


def note(path: Path, *, tree: bool = False, sync: bool = True) -> None:
    """Note that vgid is about to write a file, in the journal of the run in progress that it belongs to; outside of runs do nothing.

    Args:
        path: the file.
        tree: it is a folder that another library fills.
        sync: False to leave it to the system when the note reaches the disk, as `vgid.artifacts.write_bytes_atomic` does.

    Raises:
        OutputError: a file that vgid did not write is in the way, or the journal cannot be written.
    """
    full = _absolute(path)
    run = next((each for each in _active() if full.is_relative_to(each) and full != each / MARK), None)
    if run is None:
        return
    name = full.relative_to(run).as_posix() + ("/" if tree else "")
    noted = _noted.setdefault(run, _Journal())
    if noted.covers(name):
        return
    if os.path.lexists(full):  # only then is the journal read, which would take long for each of many files
        others = any(full in each.parents for each in _contents(run).others) if tree else not _read_journal(run).covers(name)
        if others:
            fix = "move it elsewhere, then run the command again"
            raise OutputError("a file that vgid did not write is in the way", where=str(path), fix=fix)
    _append(run, [f"+ {json.dumps(name)}"], sync=sync)
    (noted.trees if tree else noted.files).add(name)


def discard(path: Path) -> bool:
    """Remove what vgid wrote at or below a path in a run's folder, unfinished files included; files of others stay.

    Returns:
        Whether the path is in a run's folder; outside of one nothing is removed.

    Raises:
        OutputError: a file cannot be removed.
    """
    full = _absolute(path)
    run = next((each for each in full.parents if (each / MARK).is_file()), None)
    if run is None:
        return False
    unfinished = f"{full.parent}{os.sep}.{full.name}."
    ours = [each for each in _contents(run).ours if each.is_relative_to(full) or str(each).startswith(unfinished)]
    _remove(ours, run)
    _append(run, [f"- {json.dumps(each.relative_to(run).as_posix())}" for each in ours])
    _noted.pop(run, None)
    for folder in (full, *full.parent.glob(f".{glob.escape(full.name)}.*")):
        _remove_folder(folder)  # one that a killed process had made, and not filled yet
    return True


def written_files(run: Path) -> list[Path]:
    """Return the files below a run's folder that vgid wrote, sorted; those of runs inside it that belong to it too."""
    return _contents(run).ours


def unfinished_files(run: Path) -> list[Path]:
    """Return those of `written_files` that were never finished, since the process that wrote them was killed."""
    hidden = [tree for tree in _read_journal(run).trees if Path(tree).name.startswith(".")]
    return [
        path
        for path in _contents(run).ours
        if _UNFINISHED.match(path.name) or any(path.relative_to(run).as_posix().startswith(tree) for tree in hidden)
    ]


def _absolute(path: Path) -> Path:
    """Return an absolute path without `..`; unlike `resolve` it keeps links, so that a path stays below the folder it was named in."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _real(path: Path) -> Path:
    """Resolve links; unlike `resolve` it takes links that lead in a circle."""
    return Path(os.path.realpath(path))


def _active() -> list[Path]:
    """Return the folders of the runs in progress, innermost first."""
    return [Path(each) for each in reversed(json.loads(os.environ.get(ACTIVE, "[]")))]


def _read_journal(run: Path) -> _Journal:
    journal = _Journal()
    lines = (run / MARK).read_text("utf-8", errors="replace").splitlines()
    journal.known = bool(lines) and lines[0].startswith(SCHEMA)
    for line in (line for line in lines if line.startswith(("+ ", "- "))):
        try:
            name = json.loads(line[2:])
        except (ValueError, RecursionError):  # a line that a crash cut off
            continue
        if isinstance(name, str):
            names = journal.trees if name.endswith("/") else journal.files
            names.add(name) if line[0] == "+" else names.discard(name)
    return journal


def _append(run: Path, lines: Sequence[str], *, sync: bool = True) -> None:
    try:
        with (run / MARK).open("a", encoding="utf-8") as file:
            # A line begins with its line break, so that one that a crash or a full disk cut off does not spoil the next.
            file.write("".join(f"\n{line}" for line in lines))
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(run / MARK, error, "journal") from error


def _contents(run: Path) -> _Contents:
    """Sort the files of a run's folder; links are never followed, and results that were set aside are left out."""
    found = _Contents([], [])
    waiting = [(run, run, _read_journal(run))]
    while waiting:
        folder, root, journal = waiting.pop()
        try:
            children = list(folder.iterdir())
        except FileNotFoundError:  # another process of the run has just given an unfinished folder its name
            continue
        for path in children:
            name = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_dir():
                (found.ours if journal.covers(name) else found.others).append(path)
            elif path == run / PREVIOUS:
                continue
            elif (path / MARK).is_file() and journal.covers(f"{name}/{MARK}"):  # a run that is a step of this one
                waiting.append((path, path, _read_journal(path)))
            elif path == root / PREVIOUS:
                waiting.append((path, path, _read_journal(path) if (path / MARK).is_file() else journal))
            else:
                waiting.append((path, root, journal))
    return _Contents(sorted(found.ours), sorted(found.others))


def _remove(paths: Iterable[Path], run: Path) -> None:
    """Remove files, and folders below `run` that this empties; journals last, since the process may be killed meanwhile."""
    for path in sorted(paths, key=lambda each: (each.name == MARK, -len(each.parts))):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove it: {error.strerror or error}", where=str(path), fix="remove it by hand") from error
        for folder in path.parents:
            if folder == run or not _remove_folder(folder):
                break


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # something is in it
        return False
    return True


def _move(paths: Iterable[Path], source: Path, target: Path) -> None:
    """Move files and then, in one instant, the journal: it stays where a killed process would have to look for it."""
    moved = [path for path in paths if path != source / MARK]
    for path in moved:
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, to)
    _remove(moved, source)
    target.mkdir(exist_ok=True)
    _write_journal(target, (source / MARK).read_bytes())


def _write_journal(folder: Path, content: bytes) -> None:
    unfinished = folder / f".{MARK}.00000000.tmp"
    unfinished.write_bytes(content)
    os.replace(unfinished, folder / MARK)


def _set_aside(folder: Path) -> None:
    """Move an earlier run's files into `PREVIOUS`; where an older one's are there still, this one never became whole, and it goes."""
    ours = [path for path in _contents(folder).ours if path != folder / MARK]
    if (folder / PREVIOUS / MARK).is_file():
        _remove(ours, folder)
    elif ours or (folder / PREVIOUS).is_dir():
        _move(ours, folder, folder / PREVIOUS)


def _drop(previous: Path) -> None:
    if (previous / MARK).is_file():
        _remove(_contents(previous).ours, previous)
        _remove_folder(previous)


def _put_back(folder: Path, made: Sequence[Path]) -> None:
    """Remove what a run that failed wrote, and move back what it was to replace."""
    previous = folder / PREVIOUS
    if (previous / MARK).is_file():
        _remove([path for path in _contents(folder).ours if path != folder / MARK], folder)
        _move(_contents(previous).ours, previous, folder)
        _drop(previous)
    else:
        _remove(_contents(folder).ours, folder)
    for each in made:
        _remove_folder(each)


def _close_trees(folder: Path) -> None:
    """List one by one the files of folders that another library filled: what is added to them later is not ours."""
    trees = _read_journal(folder).trees
    files = [path for path in _contents(folder).ours if any(path.relative_to(folder).as_posix().startswith(tree) for tree in trees)]
    lines = [f"+ {json.dumps(path.relative_to(folder).as_posix())}" for path in files]
    if trees:
        _append(folder, [*lines, *(f"- {json.dumps(tree)}" for tree in sorted(trees))])
