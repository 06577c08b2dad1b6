"""Tables of text: CSV, and TSV with tabs, whose first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgid.data.readers.base import MOST_BYTES, Rows, failing
from vgid.data.readers.json_rows import MALFORMED, parse
from vgid.errors import DataError

SUFFIXES = (".csv", ".tsv")
LISTS = frozenset("images keywords tags context messages conversations history image_paths".split())
"""Columns whose cells may be lists, as JSON."""
INDEX = "(without a name)"
"""Name of a first column without one, as pandas writes the numbers of rows."""
SEPARATED = frozenset(("keywords", "tags"))
"""Columns in which a cell is one entry unless it is a list."""


def rows(file: Path) -> Rows:
    """Read a table; empty cells are missing values.

    Raises:
        DataError: the file is not UTF-8, its first line does not name columns, or it cannot be read.
    """
    tab = "\t" if file.suffix.lower() == ".tsv" else ","
    csv.field_size_limit(MOST_BYTES)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            table = csv.reader((_without_zeros(line, file) for line in text), delimiter=tab, strict=True)
            names = [name.strip() for name in next(table, ())]
            if len(names) > 1 and not names[0]:
                names[0] = INDEX
            _check_names(names, file, tab)
            for cells in table:
                if cells:
                    yield table.line_num, _row(names, cells, f"{file}:{table.line_num}")
    except UnicodeDecodeError as error:
        raise DataError("file is not UTF-8", where=file, got=f"byte {error.start}", fix="save it as UTF-8") from None
    except csv.Error as error:
        raise DataError("malformed table", where=f"{file}:{table.line_num}", got=str(error), fix="check the quotation marks") from None
    except OSError as error:
        raise DataError("the file cannot be read", where=file, got=error.strerror, fix="check that you may read it") from error


def _without_zeros(line: str, file: Path) -> str:
    if "\0" in line:
        raise DataError("the table holds zero characters", where=file, fix="save it as UTF-8 text")
    return line


def _check_names(names: list[str], file: Path, tab: str) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled or not names or not all(names):
        got = f"{', '.join(doubled)} twice" if doubled else "a column without a name" if names else "an empty line"
        raise DataError("the first line does not name every column once", where=file, expected="names of columns", got=got)
    if len(names) == 1 and any(other in names[0] for other in ";\t,|" if other != tab):
        raise DataError(
            "the table has a single column", where=file, expected="commas between columns, or tabs in .tsv", fix="save it with commas"
        )


def _row(names: list[str], cells: list[str], where: str) -> Any:
    if len(cells) != len(names):
        return failing(
            DataError(
                "row has another number of cells than the first line",
                where=where,
                expected=f"{len(names)} cells",
                got=str(len(cells)),
                fix="put texts with commas into quotation marks",
            )
        )
    return lambda: dict(_values(names, cells, where))


def _values(names: list[str], cells: list[str], where: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=True):
        column = name.casefold()
        if not cell.strip():
            continue
        if column in LISTS and cell.lstrip().startswith("["):
            yield name, _list(name, cell, where)
        else:
            yield name, [cell] if column in SEPARATED else cell


def _list(name: str, cell: str, where: str) -> Any:
    try:
        return parse(cell, where)
    except DataError as problem:
        if problem.problem != MALFORMED:
            raise
        fix = "write it with json.dumps: Python's own form of a list is not read"
        raise DataError(f"{name} is not a list as JSON", where=where, expected='["a", "b"]', got=problem.got, fix=fix) from None
