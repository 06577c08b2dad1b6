"""Rows in memory: a `datasets.Dataset`, or any iterable of mappings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vgid.data.readers.arrow_rows import named
from vgid.data.readers.base import RawRow
from vgid.data.turns import ANSWERS, CHATS, QUESTIONS
from vgid.errors import DataError


def rows(source: Iterable[Any], name: str) -> Iterator[RawRow]:
    """Give the rows one at a time.

    Args:
        source: the rows.
        name: what their ids start with.

    Raises:
        DataError: the source is not a list of rows, has no columns of questions, or cannot be read.
    """
    if isinstance(source, Mapping):  # a DatasetDict too
        raise DataError(
            "a mapping is not a list of rows",
            expected="a data set, or a list of rows",
            got=type(source).__name__,
            fix='give one of its splits, such as data["train"]; or put a single row into a list',
        )
    if hasattr(source, "iterrows") or hasattr(source, "iter_rows"):
        fix = 'give frame.to_dict("records"), or frame.to_dicts() with Polars'
        raise DataError("a table is not a list of rows", expected="a data set, or a list of rows", got=type(source).__name__, fix=fix)
    _check_columns(getattr(source, "column_names", None))
    names = _class_names(getattr(source, "features", None))
    number = 0
    try:
        for number, row in enumerate(source, 1):
            # A data set gives None for what a row does not have.
            content = named({key: value for key, value in row.items() if value is not None}, names) if isinstance(row, Mapping) else row
            yield RawRow(f"row {number}", f"{name}-{number}", None, content)
    except (OSError, SyntaxError) as error:  # a data set decodes images while it is read
        raise DataError(
            "the data set cannot be read",
            where=f"row {number + 1}",
            got=type(error).__name__,
            fix="look at this row's images; leave the row out, or export its images again",
        ) from error
    except TypeError as error:
        if number:
            raise
        raise DataError("this is not a list of rows", expected="a data set, or a list of rows", got=type(source).__name__) from error


def _check_columns(columns: Any) -> None:
    if not isinstance(columns, list | tuple) or not columns:
        return
    known = {str(column).casefold() for column in columns}
    if not known & {*QUESTIONS, *CHATS}:
        raise DataError(
            "the data set lacks columns of questions and answers",
            expected=f"one of {', '.join((*QUESTIONS, *CHATS))}; and one of {', '.join(ANSWERS)} with the former",
            got=", ".join(map(str, columns)),
            fix="rename its columns, with rename_column for example",
        )


def _class_names(features: Any) -> dict[str, list[str]]:
    """The names of the classes by column, for columns of `datasets.ClassLabel`."""
    if not isinstance(features, Mapping):
        return {}
    return {name: list(kind.names) for name, kind in features.items() if type(kind).__name__ == "ClassLabel" and kind.names}
