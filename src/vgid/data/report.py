"""Counts of a split, as `vgid data check` shows them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from vgid.data.example import Example
from vgid.data.problems import SHOWN, Notes
from vgid.errors import DataError

LONGEST = 3
"""Number of the longest rows that a report names."""


@dataclass(frozen=True)
class DataReport:
    """Counts of one split, as `vgid data check` shows them.

    Attributes:
        path: file, folder or name of the split.
        rows: number of good rows.
        with_image: number of good rows with at least one image.
        text_only: number of good rows without an image.
        images: number of different images, compared by their bytes.
        subjects: number of different subjects.
        with_keywords: number of good rows with keywords.
        unused_columns: names of columns that vgid does not read.
        changes: what was read in another form than it stands in the data, with its number of rows.
        problems: messages about bad rows; empty when all rows can be used.
        longest: places of the longest rows, with their length in characters: question, answer and context together.
    """

    path: str
    rows: int
    with_image: int
    text_only: int
    images: int
    subjects: int
    with_keywords: int
    unused_columns: tuple[str, ...]
    problems: tuple[str, ...]
    longest: tuple[tuple[str, int], ...] = ()
    changes: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.rows} good rows, {len(self.problems)} problems",
            f"  {self.with_image} with an image ({self.images} different images), {self.text_only} text-only",
            f"  {self.subjects} subjects, {self.with_keywords} rows with keywords",
        ]
        if self.longest:
            lines.append(f"  longest rows: {', '.join(f'{place} ({length} characters)' for place, length in self.longest)}")
        lines += [f"  columns not used: {', '.join(self.unused_columns)}"] if self.unused_columns else []
        lines += [f"  {change}: {count}" for change, count in self.changes]
        more = len(self.problems) - SHOWN
        return "\n".join([*lines, *self.problems[:SHOWN], *([f"... and {more} more problems"] if more > 0 else [])])


def report(path: str, examples: Iterable[Example], problems: Iterable[DataError], notes: Notes | None = None) -> DataReport:
    """Count examples.

    Args:
        path: file, folder or name of the split, as it is shown.
        examples: the good rows; they are read one at a time.
        problems: one error for each bad row; counted after the last example, so that reading may still add to them.
        notes: what was not read, or in another form; counted after the last example, too.

    Returns:
        The counts.
    """
    rows = with_image = with_keywords = 0
    images, subjects = set[str](), set[str]()
    longest: list[tuple[int, int, str]] = []
    for example in examples:
        rows, with_image, with_keywords = rows + 1, with_image + bool(example.images), with_keywords + bool(example.keywords)
        images.update(ref.fingerprint for ref in example.images)
        if example.subject is not None:
            subjects.add(example.subject)
        # Of equally long rows the first ones.
        insert = heapq.heappush if len(longest) < LONGEST else heapq.heappushpop
        insert(longest, (example.length, -rows, example.where or example.id))
    found = [str(problem) for problem in problems]
    if not rows and not found:
        found = [str(DataError("no examples", where=path, expected="at least one good row", got="none"))]
    return DataReport(
        path=path,
        rows=rows,
        with_image=with_image,
        text_only=rows - with_image,
        images=len(images),
        subjects=len(subjects),
        with_keywords=with_keywords,
        unused_columns=tuple(sorted(notes.unused)) if notes else (),
        problems=tuple(found),
        longest=tuple((place, length) for length, _, place in sorted(longest, reverse=True)),
        changes=tuple(sorted(notes.changes.items())) if notes else (),
    )
