"""Parquet files, and the Arrow files in folders of `datasets.Dataset.save_to_disk`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vgid.data.readers.base import MOST_BYTES, Rows
from vgid.errors import DataError, first_line
from vgid.limits import MEMORY, CallError, OverLimitError, limited

SUFFIXES = (".parquet",)
METADATA_SECONDS = 60.0
"""Time that reading the metadata of a parquet file may take; a file of ten thousand row groups takes a few."""
RESERVED_BYTES = 2**30
"""Addresses that Arrow reserves when a process first asks it for memory, without taking the memory; limits count addresses."""
READ_AT_ONCE = 256
"""Rows that are read at once; chosen by hand."""
STATE = "state.json"
"""The file by which a folder of `save_to_disk` is known; it lists the Arrow files."""
SPLITS = "dataset_dict.json"
"""The file by which a folder of a `DatasetDict` is known; it lists the folders of its splits."""


def rows(file: Path) -> Rows:
    """Read a parquet file.

    Raises:
        DataError: the file cannot be read, a column of ours has a type that holds no text, or a value is too large.
    """
    import pyarrow as pa
    from pyarrow import parquet

    check_sizes(file)
    try:
        # With these options Arrow does not read ahead and hold whole files.
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
        columns = _readable(table.schema_arrow, file)
        if not columns:
            raise DataError("no column can be read", where=file, expected="columns as in docs/data.md", got=_names(table.schema_arrow))
        names = _class_names(table.schema_arrow.metadata)
        batches = table.iter_batches(batch_size=READ_AT_ONCE, columns=columns)
        yield from _numbered(batches, names, _unread(table.schema_arrow))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("parquet file cannot be read", where=file, got=first_line(error), fix="write the file again") from error


def saved_rows(folder: Path) -> Rows:
    """Read a folder that `datasets.Dataset.save_to_disk` wrote, all of its files in their order.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        for file in saved_files(folder):
            with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                columns = _readable(stream.schema, file)
                for batch in stream:
                    # Offsets of texts and lists are read from the file as they are: wrong ones would end the process.
                    batch.validate(full=True)
                    for start in range(0, batch.num_rows, READ_AT_ONCE):
                        yield batch.select(columns).slice(start, READ_AT_ONCE)

    try:
        first = saved_files(folder)[0]
        with pa.memory_map(str(first)) as source, pa.ipc.open_stream(source) as stream:
            names, unread = _class_names(stream.schema.metadata), _unread(stream.schema)
        yield from _numbered(batches(), names, unread)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("saved data set cannot be read", where=folder, got=first_line(error), fix="save it again") from error


def saved_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a folder of `save_to_disk`, in their order.

    Raises:
        DataError: the list cannot be read, names no file, or the rows of another order than that of the files.
    """
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        files = [folder / Path(each["filename"]).name for each in state["_data_files"]]
        chosen = state.get("_indices_data_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError("saved data set cannot be read", where=folder / STATE, got=type(error).__name__, fix="save it again") from None
    if chosen or not files:
        fix = "call flatten_indices() on it, and save it again" if chosen else "save it again"
        raise DataError(
            "saved data set has no rows of its own", where=folder, got="a choice of other rows" if chosen else "no files", fix=fix
        )
    return files


def check_sizes(file: Path) -> None:
    """Refuse a parquet file with values that take several times their size of memory, before any is read.

    In a worker process: Arrow ends the process that asks for columns which damaged metadata lack.

    Raises:
        DataError: there is such a value, or the file cannot be read.
    """
    try:
        found = limited(_too_large, file, seconds=METADATA_SECONDS, memory=MEMORY + RESERVED_BYTES)
    except (OverLimitError, CallError) as error:
        got = next(iter(error.text.splitlines()), error.kind) if isinstance(error, CallError) else "damaged metadata"
        raise DataError("parquet file cannot be read", where=file, got=got, fix="write the file again") from None
    if found is not None:
        column, size = found
        raise DataError(
            "a value is too large",
            where=file,
            expected=f"at most {MOST_BYTES:,} bytes",
            got=f"{size:,} bytes in column {column}",
            fix="take it out",
        )


def _too_large(file: Path) -> tuple[str, int] | None:
    """Column and bytes of the first values that are too large."""
    from pyarrow import parquet

    metadata = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20).metadata
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group)
        for column in range(chunk.num_columns):
            found = chunk.column(column)
            if found.total_uncompressed_size > MOST_BYTES * max(1, found.num_values):
                return found.path_in_schema, found.total_uncompressed_size
    return None


def _readable(schema: Any, file: Path) -> list[str]:
    """Columns whose values are text, numbers, pictures, or lists of these; others must not be ours."""
    from vgid.data.turns import COLUMNS

    chosen = []
    for field in schema:
        if _is_plain(field.type):
            chosen.append(field.name)
        elif field.name.casefold() in COLUMNS:
            raise DataError(
                f"column {field.name} holds no text", where=file, expected="text", got=str(field.type), fix="convert the column"
            )
    return chosen


def _unread(schema: Any) -> dict[str, str]:
    """All other columns, with their types in place of values: so they are counted as not used, or refused, as in any other file."""
    return {field.name: str(field.type) for field in schema if not _is_plain(field.type)}


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(place).type) for place in range(kind.num_fields))
    lists = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
        types.is_dictionary,
    )
    if any(test(kind) for test in lists):
        return _is_plain(kind.value_type)
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary, types.is_binary_view)
    others = (types.is_boolean, types.is_null, types.is_integer, types.is_floating)
    return any(test(kind) for test in (*texts, *others))


def _numbered(batches: Iterable[Any], names: Mapping[str, list[str]], unread: Mapping[str, str]) -> Rows:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, named({**unread, **{name: value for name, value in row.items() if value is not None}}, names)


def named(row: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """Put the names of classes in place of their numbers, which a column of `datasets.ClassLabel` holds."""
    for column, labels in names.items():
        if isinstance(number := row.get(column), int) and 0 <= number < len(labels):
            row[column] = labels[number]
    return row


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of the classes by column, as `datasets` writes them beside the columns."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _names(schema: Any) -> str:
    return ", ".join(schema.names[:10]) or "none"
