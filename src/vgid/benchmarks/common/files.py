"""A benchmark's files: where they lie, and rows out of parquet and JSON.

Rows are streamed and pictures stay encoded, so memory does not grow with the data.
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
from vgid.errors import DataError

BATCH = 16
"""Rows of a parquet file held at once."""
BUFFER = 2**20
"""Bytes of a column read at once."""


class Source(NamedTuple):
    """Where a benchmark is published: id on the hub, kind of repository, and a revision (commit, tag or branch)."""

    id: str
    kind: Literal["dataset", "model"] = "dataset"
    revision: str = "main"


@dataclass(frozen=True)
class Place:
    """A local copy of a benchmark; where it was fetched from the hub, from which repository and of which commit."""

    root: Path
    source: str | None = None
    commit: str | None = None

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures in it."""
        return Pictures(self.root if self.root.is_dir() else self.root.parent)


def locate(data: str | Path, *known: Source) -> Place:
    """Find a local folder or file, or fetch a repository from the hub: `owner/name`, `owner/name@revision`.

    A repository that is not among the `known` sources is taken for a data set.

    Raises:
        DataError: there is no such thing, or it cannot be fetched.
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
    """Download a repository; the commit is the last part of the path it lies under."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(source.id, repo_type=source.kind, revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "the data set cannot be fetched from the hub",
            where=f"{source.id}@{source.revision}",
            got=type(error).__name__,
            fix="download it where there is a network, and give the folder",
        ) from error
    return Place(folder, source.id, folder.name)


def shards(root: Path, split: str) -> list[Path]:
    """The parquet files of a split: `<split>/*.parquet`, `data/<split>-*.parquet`, `<split>-*.parquet`, `<split>.parquet`.

    Empty where there are none. A file given in place of a folder is every split.
    """
    if root.is_file():
        return [root]
    for folder in (root, root / "data"):
        for pattern in (f"{split}/*.parquet", f"{split}/*/*.parquet", f"{split}-*.parquet", f"{split}.parquet"):
            if found := sorted(folder.glob(_escaped(pattern, split))):
                return found
    return []


def _escaped(pattern: str, split: str) -> str:
    return pattern.replace(split, re.sub(r"([*?\[])", r"[\1]", split), 1)


def need_shards(root: Path, *splits: str) -> list[Path]:
    """The files of the first of these splits that is there.

    Raises:
        DataError: none is.
    """
    for split in splits:
        if found := shards(root, split):
            return found
    there = sorted({child.name for child in root.iterdir()}) if root.is_dir() else []
    raise DataError(
        f"the split {splits[0]!r} is not there",
        where=root,
        expected=" or ".join(f"{split}/*.parquet" for split in splits),
        got=", ".join(there[:12]) + (" ..." if len(there) > 12 else "") or "an empty folder",
        fix="download the whole data set, or ask for another split",
    )


def columns(file: Path) -> list[str]:
    """Names of a parquet file's columns.

    Raises:
        DataError: the file cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(file).names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("parquet file cannot be read", where=file, got=str(error).splitlines()[0], fix="download it again") from error


def check_columns(file: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """Make sure that a file has the columns this reader knows.

    Raises:
        DataError: it has not; names what was expected and what was found.
    """
    missing = [name for name in required if name not in found]
    if missing:
        raise DataError(
            "the file is of another layout than this benchmark's reader knows",
            where=file,
            expected=f"columns {', '.join(required)}",
            got=f"columns {', '.join(found)}; missing: {', '.join(missing)}",
            fix="check that this is the right benchmark, in the revision this version of vgid reads",
        )


def parquet_rows(files: Sequence[Path], required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[SourceRow]:
    """Stream the rows of parquet files; other columns are not read at all.

    Raises:
        DataError: a file cannot be read, or lacks a required column.
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
                    for row in batch.to_pylist():
                        number, count = number + 1, count + 1
                        yield SourceRow(f"{file}:{number}", row, count)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError("parquet file cannot be read", where=file, got=str(error).splitlines()[0], fix="download it again") from error


def json_rows(file: Path, required: Sequence[str]) -> Iterator[SourceRow]:
    """The rows of a JSON list, or of JSON lines (whatever the file's name says), these one line at a time.

    Raises:
        DataError: it is neither, or a row lacks a required field.
    """
    for number, (where, row) in enumerate(_json_objects(file), 1):
        if not isinstance(row, dict):
            raise DataError("row is no object", where=where, expected=f"fields {', '.join(required)}", got=type(row).__name__)
        missing = [name for name in required if name not in row]
        if missing:
            raise DataError(
                "the row is of another layout than this benchmark's reader knows",
                where=where,
                expected=f"fields {', '.join(required)}",
                got=f"fields {', '.join(row)}; missing: {', '.join(missing)}",
            )
        yield SourceRow(where, row, number)


def _json_objects(file: Path) -> Iterator[tuple[str, Any]]:
    number = 0
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
        raise DataError("no such file", where=file, fix="download the whole data set") from None
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=file, got=f"byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise DataError("malformed JSON", where=f"{file}:{number or error.lineno}", got=f"{error.msg}, column {error.colno}") from None


def picture(value: Any, place: Place, where: str) -> ImageRef:
    """A picture stored as bytes, as `{bytes, path}`, or as a path in the benchmark's folder.

    Raises:
        DataError: it is nothing of these.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return ImageRef(data=value)
    if isinstance(value, str) and value.strip():
        return place.pictures.get(value.strip(), where)
    raise DataError("image has the wrong type", where=where, expected="{bytes, path}", got="nothing" if not value else type(value).__name__)
