"""A benchmark's files: where they are, and their rows, read from parquet and JSON.

Rows are streamed and images stay encoded, so memory does not grow with the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vgid.benchmarks.common.pictures import Pictures
from vgid.benchmarks.common.values import SourceRow
from vgid.data.example import ImageRef
from vgid.data.readers.arrow_rows import check_sizes
from vgid.data.readers.base import check_file
from vgid.errors import DataError, first_line

BATCH = 16
"""Rows of a parquet file that are held at once; an image of a benchmark has up to a few megabytes."""
BUFFER = 2**20
"""Bytes of a parquet column that are read at once."""
SHOWN_NAMES = 12
"""Names of files that an error message lists, at most."""


class Source(NamedTuple):
    """Where a benchmark is published.

    Attributes:
        id: `owner/name` on the hub.
        kind: kind of repository.
        revision: a commit, tag or branch.
    """

    id: str
    kind: Literal["dataset", "model"] = "dataset"
    revision: str = "main"


@dataclass(frozen=True)
class Place:
    """A local copy of a benchmark.

    Attributes:
        root: the folder, or the one file.
        source: the repository on the hub that it was fetched from; None for data that were given locally.
        commit: the commit of that repository.
    """

    root: Path
    source: str | None = None
    commit: str | None = None

    @cached_property
    def pictures(self) -> Pictures:
        """The images in the folder, by relative path."""
        return Pictures(self.root if self.root.is_dir() else self.root.parent)


def locate(data: str | Path, *known: Source) -> Place:
    """Find a local folder or file, or fetch a repository from the hub.

    Args:
        data: a path, or `owner/name` or `owner/name@revision` on the hub.
        known: sources whose kind of repository is known; any other repository is fetched as a dataset.

    Returns:
        The local copy.

    Raises:
        DataError: there is no such path, or the repository cannot be fetched.
    """
    path = Path(data)
    if path.exists():
        return Place(path)
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", str(data))
    if hub is None or str(data).startswith((".", "/", "~")):
        raise DataError(
            "no such file or folder",
            where=data,
            expected="a local copy, or an id on the hub such as owner/name@revision",
            fix="check the path",
        )
    source = next((each for each in known if each.id == hub[1]), Source(hub[1]))
    return _fetch(source._replace(revision=hub[2] or source.revision))


def _fetch(source: Source) -> Place:
    """Download a repository. The hub's client names the folder of a snapshot by its commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.id, repo_type=source.kind, revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "the dataset cannot be fetched from the hub",
            where=f"{source.id}@{source.revision}",
            got=type(error).__name__,
            fix="download it where there is a network connection, and give the folder",
        ) from error
    return Place(folder, source.id, folder.name)


def shards(root: Path, split: str) -> list[Path]:
    """Return the parquet files of a split, sorted; empty where there are none.

    They are `<split>/*.parquet`, `<split>/*/*.parquet`, `<split>-*.parquet` or `<split>.parquet`, in `root` or in `root/data`; the first
    pattern that matches counts. A root that is a file is every split.
    """
    if root.is_file():
        return [root]
    for folder in (root, root / "data"):
        for pattern in (f"{split}/*.parquet", f"{split}/*/*.parquet", f"{split}-*.parquet", f"{split}.parquet"):
            # The split's name may hold characters that mean something in a pattern.
            if found := sorted(folder.glob(pattern.replace(split, re.sub(r"([*?\[])", r"[\1]", split), 1))):
                return found
    return []


def need_shards(root: Path, *splits: str) -> list[Path]:
    """Return the files of the first of these splits that is there.

    Raises:
        DataError: none of them is there.
    """
    for split in splits:
        if found := shards(root, split):
            return found
    there = sorted({child.name for child in root.iterdir()}) if root.is_dir() else []
    raise DataError(
        f"the split {splits[0]!r} is not there",
        where=root,
        expected=" or ".join(f"{split}/*.parquet" for split in splits),
        got=", ".join(there[:SHOWN_NAMES]) + (" ..." if len(there) > SHOWN_NAMES else "") or "an empty folder",
        fix="download the whole dataset, or choose another split",
    )


def columns(file: Path) -> list[str]:
    """Return the names of a parquet file's columns.

    Raises:
        DataError: the file cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    check_file(file)
    check_sizes(file)
    try:
        return list(parquet.read_schema(file).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("parquet file cannot be read", where=file, got=first_line(error), fix="download it again") from error


def check_columns(file: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """Check that a file has the columns that a benchmark's reader needs.

    Args:
        file: the file, for the message.
        found: names of its columns.
        required: names of the columns that it must have.

    Raises:
        DataError: columns are missing; the message names those expected and those found.
    """
    missing = [name for name in required if name not in found]
    if missing:
        raise DataError(
            "the file has another layout than this benchmark's reader knows",
            where=file,
            expected=f"columns {', '.join(required)}",
            got=f"columns {', '.join(found)}; missing: {', '.join(missing)}",
            fix="check that this is the right benchmark, in the revision that this version of vgid reads",
        )


def _in_microseconds(batch: Any) -> Any:
    """A batch with its times in nanoseconds cut to microseconds: Python has no smaller unit, and Arrow asks for pandas then."""
    import pyarrow

    def coarser(kind: Any) -> Any:
        return pyarrow.timestamp("us", kind.tz) if pyarrow.types.is_timestamp(kind) and kind.unit == "ns" else kind

    schema = pyarrow.schema([field.with_type(coarser(field.type)) for field in batch.schema])
    return batch if schema == batch.schema else batch.cast(schema, safe=False)


def parquet_rows(files: Sequence[Path], required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[SourceRow]:
    """Stream the rows of parquet files; columns that are not named are not read.

    Args:
        files: the files, in order.
        required: columns that every file must have.
        optional: columns that are read where a file has them.

    Returns:
        The rows, numbered from 1 over all files.

    Raises:
        DataError: a file cannot be read, or a required column is missing.
    """
    import pyarrow
    from pyarrow import parquet

    count = 0
    for file in files:
        found = columns(file)
        check_columns(file, found, required)
        wanted, number = [name for name in (*required, *optional) if name in found], 0
        try:
            # Without these two, Arrow reads ahead and holds whole files.
            with parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER) as table:
                for batch in table.iter_batches(batch_size=BATCH, columns=wanted):
                    for row in _in_microseconds(batch).to_pylist():
                        number, count = number + 1, count + 1
                        yield SourceRow(f"{file}:{number}", row, count)
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # texts that are not UTF-8, times out of range
            raise DataError("parquet file cannot be read", where=file, got=first_line(error), fix="download it again") from error


def json_rows(file: Path, required: Sequence[str]) -> Iterator[SourceRow]:
    """Stream the rows of a JSON list or of JSON lines, whatever the file's name says.

    Raises:
        DataError: the file is neither of them, or a row lacks a required field.
    """
    for number, (where, row) in enumerate(_json_objects(file), 1):
        if not isinstance(row, dict):
            raise DataError("the row is not an object", where=where, expected=f"fields {', '.join(required)}", got=type(row).__name__)
        missing = [name for name in required if name not in row]
        if missing:
            raise DataError(
                "the row has another layout than this benchmark's reader knows",
                where=where,
                expected=f"fields {', '.join(required)}",
                got=f"fields {', '.join(row)}; missing: {', '.join(missing)}",
            )
        yield SourceRow(where, row, number)


def _json_objects(file: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    if file.exists() and not file.is_file():  # a pipe would be waited for, without an end
        raise DataError("not an ordinary file", where=file, expected="a data file", fix="copy its content into a file")
    try:
        with file.open("r", encoding="utf-8-sig") as lines:
            if next((line for line in lines if line.strip()), "").lstrip().startswith("["):
                lines.seek(0)
                yield from ((f"{file}:{index}", row) for index, row in enumerate(json.load(lines), 1))
                return
            lines.seek(0)
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", json.loads(line)
    except FileNotFoundError:
        raise DataError("no such file", where=file, fix="download the whole dataset") from None
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=file, got=f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise DataError("malformed JSON", where=f"{file}:{number or error.lineno}", got=f"{error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        got = "a number that is too long" if isinstance(error, ValueError) else "lists or objects nested too deeply"
        raise DataError("the JSON cannot be read", where=f"{file}:{number or 1}", got=got, fix="download it again") from None


def picture(value: Any, place: Place, where: str) -> ImageRef:
    """Return an image that is stored as bytes, as `{bytes, path}`, or as a path in the benchmark's folder.

    Args:
        value: what the row holds.
        place: where paths are looked up.
        where: place of the row, for messages.

    Returns:
        The encoded image, not decoded.

    Raises:
        DataError: the value is none of these, or there is no such image.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return ImageRef(data=value)
    if isinstance(value, str) and value.strip():
        return place.pictures.get(value.strip(), where)
    raise DataError("image has the wrong type", where=where, expected="{bytes, path}", got="nothing" if not value else type(value).__name__)
