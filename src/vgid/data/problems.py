"""What reading found: errors of rows, and counts of what was read in another form than it stands in the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgid.artifacts import write_text_atomic
from vgid.errors import DataError

SHOWN = 20
"""Problems that a message or a report lists, at most; the others are counted."""
MOST_PROBLEMS = 100_000
"""Bad rows after which reading stops: this number means that the format is another, and a file may have 10^8 of them. Chosen by hand."""


class TooManyProblemsError(Exception):
    """Reading stopped after `MOST_PROBLEMS` bad rows."""


class Notes:
    """Counts of rows, by what was read in another form or not at all; harmless, so that they are warnings.

    Attributes:
        unused: columns that are not read, with their number of rows.
        changes: what was changed, in words, with its number of rows.
    """

    def __init__(self) -> None:
        self.unused: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        if self.unused:
            yield "columns not used: " + ", ".join(sorted(self.unused))
        for change, rows in sorted(self.changes.items()):
            yield f"{change}: {rows} {'row' if rows == 1 else 'rows'}"

    def update(self, other: Notes) -> None:
        """Add the counts of another source."""
        self.unused.update(other.unused)
        self.changes.update(other.changes)


class Problems:
    """Errors of rows with the numbers of these rows; they come in the rows' order."""

    def __init__(self) -> None:
        self._found: list[tuple[int, DataError]] = []

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[DataError]:
        return iter([problem for _, problem in sorted(self._found, key=lambda pair: pair[0])])

    def add(self, number: int, problem: DataError) -> None:
        """Add the error of a row.

        Raises:
            TooManyProblemsError: there are `MOST_PROBLEMS` now.
        """
        self._found.append((number, problem))
        if len(self._found) == MOST_PROBLEMS:
            stopped = DataError(
                f"reading stopped after {MOST_PROBLEMS:,} bad rows", expected="rows as docs/data.md describes them", fix="check the format"
            )
            self._found.append((number + 1, stopped))
            raise TooManyProblemsError


def at(problem: DataError, where: Any) -> DataError:
    """Return the same error at a place."""
    return DataError(problem.problem, where=where, expected=problem.expected, got=problem.got, fix=problem.fix)


def write_problems(path: Path, problems: list[str]) -> None:
    """Write all problems into a file, one after the other.

    Raises:
        DataError: the file exists already.
        OutputError: the file cannot be written.
    """
    if path.exists():
        raise DataError("the file for the problems exists already", where=path, fix="choose another name, or remove the file")
    write_text_atomic(path, "".join(f"{problem}\n" for problem in problems))
