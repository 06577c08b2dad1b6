"""Values of a benchmark's rows, however they were stored: lists, arrays, JSON text, Python literals, one list a field.

Messages name places, columns and types, never contents.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgid.errors import DataError

LONGEST = 4_000_000
"""Characters; longer text is not parsed."""


class SourceRow(NamedTuple):
    """One row, the place it came from, and its number in the whole split."""

    where: str
    values: Mapping[str, Any]
    number: int


def text(values: Mapping[str, Any], name: str, where: str) -> str:
    """A text that is not empty, without outer white space; numbers are written out.

    Raises:
        DataError: it is missing, empty or something else.
    """
    value = values.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{name} is no text", where=where, expected=f"{name}: text", got=f"{found}; fields {', '.join(sorted(values))}")
    if not value.strip():
        raise DataError(f"{name} is empty", where=where, expected="text", got="white space, or nothing")
    return value.strip()


def optional_text(values: Mapping[str, Any], name: str) -> str | None:
    """A text, or None where there is none."""
    value = values.get(name)
    return value.strip() or None if isinstance(value, str) else None


def parsed(value: Any, name: str, where: str) -> Any:
    """The value itself, or what its text says: JSON, else a Python literal (which is read, never run).

    Raises:
        DataError: the text is neither.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, str):
        return value
    if len(value) > LONGEST:
        raise DataError(f"{name} is too long to be parsed", where=where, expected=f"at most {LONGEST:,} characters", got=f"{len(value):,}")
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
    """A list of objects; also where it is stored as one list a field, as `datasets` does with sequences of features.

    Raises:
        DataError: it is something else.
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
    """An object.

    Raises:
        DataError: it is something else.
    """
    value = parsed(value, name, where)
    if not isinstance(value, Mapping):
        raise DataError(f"{name} has the wrong type", where=where, expected="an object", got=type(value).__name__)
    return dict(value)


def texts(value: Any, name: str, where: str, *, at_least: int = 1) -> tuple[str, ...]:
    """Texts, however they were stored; one text alone counts as a list of one.

    Raises:
        DataError: there are too few, or some are no texts.
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
    """All texts in nested lists and objects, in order."""
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(found for item in value for found in flattened(item))
    return ()
