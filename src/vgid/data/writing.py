"""Examples into files that `vgid.load_examples` reads: JSONL with pictures beside it, or parquet with pictures in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vgid.artifacts import whole_file, write_bytes_atomic, write_text_atomic
from vgid.data.example import Example, ImageRef
from vgid.data.pictures import suffix_of
from vgid.errors import DataError

WRITTEN = b"vgid.rows"
"""Key in the metadata of a parquet file that this package wrote."""
ROW_GROUP = 128
"""Rows that are written to a parquet file at once; chosen by hand, so that their pictures fit into memory."""


def write_parquet(path: str | Path, examples: Iterable[Example]) -> int:
    """Write a parquet file that `load_examples` reads, with the pictures' bytes in it.

    Examples are taken and written a few at a time; the file appears only when all are written. What `load_examples` reads from it is
    equal, except for `where` and for pictures, which are bytes.

    Returns:
        The number of rows.

    Raises:
        DataError: an id is used twice, or there are no examples.
        OutputError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    turn = pa.struct({"role": pa.string(), "content": pa.string()})
    words = {name: pa.string() for name in ("id", "question", "answer", "subject")}
    lists = {name: pa.list_(pa.string()) for name in ("keywords", "tags")}
    derived = pa.struct({"from": pa.string(), "kind": pa.string()})
    columns = {**words, "images": pa.list_(picture), **lists, "context": pa.list_(turn), "derived": derived}
    schema = pa.schema(columns, metadata={WRITTEN: b"1"})
    ids: set[str] = set()
    source = iter(examples)
    with whole_file(Path(path)) as unfinished, parquet.ParquetWriter(unfinished, schema, dictionary_pagesize_limit=2**26) as writer:
        while chunk := list(islice(source, ROW_GROUP)):
            for example in chunk:
                if example.id in ids:
                    raise DataError("id used twice", where=example.where or None, fix="give every row a different id")
                ids.add(example.id)
            writer.write_table(pa.Table.from_pylist([_parquet_row(example) for example in chunk], schema=schema))
        if not ids:
            raise DataError("no examples to write", where=path, expected="at least one")
    return len(ids)


def is_written(path: Path) -> bool:
    """Return whether a file is one that `write_parquet` wrote, and not somebody's own."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return path.is_file() and WRITTEN in (parquet.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _parquet_row(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(example, name) or None for name in ("id", "question", "answer", "subject")}
    images = [{"bytes": ref.read(), "path": None} for ref in example.images]
    row |= {"images": images, "keywords": list(example.keywords), "tags": list(example.tags)}
    return row | {"context": _context(example) or None, "derived": _origin(example)}


def _origin(example: Example) -> dict[str, str] | None:
    return {"from": example.derived.source, "kind": example.derived.kind} if example.derived else None


def _context(example: Example) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in example.context]


def write_examples(path: str | Path, examples: Sequence[Example]) -> None:
    """Write a JSONL file that `load_examples` reads; images go into `images/` beside it, named by a hash of their content.

    Raises:
        OutputError: a file cannot be written.
    """
    path = Path(path)
    names: dict[ImageRef, str] = {}
    for ref in (ref for example in examples for ref in example.images):
        if ref not in names:
            content = ref.read()
            # Not a plain digest, which others could look up: the names outlive the pictures in a run's journal.
            name = f"images/{hashlib.blake2b(content, digest_size=10, person=b'vgid picture').hexdigest()}{suffix_of(content) or '.img'}"
            if not (path.parent / name).exists():
                write_bytes_atomic(path.parent / name, content, sync=False)
            names[ref] = name
    write_text_atomic(path, "".join(json.dumps(_as_row(example, names), ensure_ascii=False) + "\n" for example in examples))


def _as_row(example: Example, names: Mapping[ImageRef, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id}
    if example.images:
        paths = [names[ref] for ref in example.images]
        row |= {"image": paths[0]} if len(paths) == 1 else {"images": paths}
    row |= {"context": _context(example)} if example.context else {}
    row |= {"question": example.question} | ({"answer": example.answer} if example.answer else {})
    row |= {"subject": example.subject} if example.subject is not None else {}
    row |= {"derived": _origin(example)} if example.derived else {}
    return row | {name: list(value) for name, value in (("keywords", example.keywords), ("tags", example.tags)) if value}
