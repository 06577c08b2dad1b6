"""Values of a benchmark's rows, whichever way they are stored: lists, arrays, JSON text, Python literals, or one list per field.

Error messages name places, columns and types, never contents. In all functions `name` is the column, and `where` the place of the row.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgid.errors import DataError

LONGEST = 4_000_000
"""Characters; longer text is not parsed, so that a damaged file cannot use up the memory."""


class SourceRow(NamedTuple):
    """One row of a benchmark's file.

    Attributes:
        where: place of the row, `file:line`, for messages.
        values: the stored values by column.
        number: number of the row in the whole split, from 1.
    """

    where: str
    values: Mapping[str, Any]
    number: int


def text(values: Mapping[str, Any], name: str, where: str) -> str:
    """Return a text without outer white space; an integer is written out.

    Args:
        values: the row.
        name: the column.
        where: place of the row, for messages.

    Raises:
        DataError: the value is missing, empty, or neither a text nor an integer.
    """
    value = values.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{name} is not a text", where=where, expected=f"{name}: text", got=f"{found}; fields {', '.join(sorted(values))}")
    if not value.strip():
        raise DataError(f"{name} is empty", where=where, expected="text", got="white space, or nothing")
    return value.strip()


def optional_text(values: Mapping[str, Any], name: str) -> str | None:
    """Return a text without outer white space; None where it is missing, empty or something else."""
    value = values.get(name)
    return value.strip() or None if isinstance(value, str) else None


def parsed(value: Any, name: str, where: str) -> Any:
    """Return a value, or what its text holds: JSON, else a Python literal, which is read and never run.

    Args:
        value: what the row holds.
        name: the column.
        where: place of the row, for messages.

    Raises:
        DataError: the text is neither JSON nor a Python literal, or longer than `LONGEST`.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST:
        raise DataError(f"{name} is too long to parse", where=where, expected=f"at most {LONGEST:,} characters", got=f"{len(value):,}")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise DataError(
            f"{name} cannot be parsed", where=where, expected="JSON or a Python literal", got=f"text of {len(value)} characters"
        ) from None


def records(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    """Return a list of objects; the value may hold one list per field, as `datasets` stores sequences of features.

    Args:
        value: what the row holds, parsed or as text; None is an empty list.
        name: the column.
        where: place of the row, for messages.

    Raises:
        DataError: the value is something else.
    """
    value = parsed(value, name, where)
    if value is None:
        return []
    if isinstance(value, Mapping):
        columns = {key: parsed(column, name, where) for key, column in value.items()}
        if len({len(column) for column in columns.values() if isinstance(column, list)}) == 1 and all(
            isinstance(column, list) for column in columns.values()
        ):
            return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = [parsed(item, name, where) for item in value]
        if all(isinstance(item, Mapping) for item in items):
            return [dict(item) for item in items]
    raise DataError(f"{name} has the wrong type", where=where, expected="a list of objects", got=type(value).__name__)


def mapping(value: Any, name: str, where: str) -> dict[str, Any]:
    """Return an object, parsed or stored as text.

    Args:
        value: what the row holds.
        name: the column.
        where: place of the row, for messages.

    Raises:
        DataError: the value is something else.
    """
    value = parsed(value, name, where)
    if not isinstance(value, Mapping):
        raise DataError(f"{name} has the wrong type", where=where, expected="an object", got=type(value).__name__)
    return dict(value)


def texts(value: Any, name: str, where: str, *, at_least: int = 1) -> tuple[str, ...]:
    """Return a list of texts, parsed or stored as text; a single text counts as a list of one.

    Args:
        value: what the row holds.
        name: the column.
        where: place of the row, for messages.
        at_least: how many texts there must be.

    Raises:
        DataError: there are fewer, or some are not texts.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parsed(value, name, where)
    items = [value] if isinstance(value, str) else value
    if items is None or not isinstance(items, Sequence) or not all(isinstance(item, str) and item.strip() for item in items):
        raise DataError(f"{name} has the wrong type", where=where, expected="a list of texts", got=type(value).__name__)
    if len(items) < at_least:
        raise DataError(f"{name} has too few entries", where=where, expected=f"at least {at_least}", got=str(len(items)))
    return tuple(item.strip() for item in items)


def flattened(value: Any) -> tuple[str, ...]:
    """Return all texts in nested lists and objects, in order."""
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(found for item in value for found in flattened(item))
    return ()
