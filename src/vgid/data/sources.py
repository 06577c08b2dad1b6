"""Examples out of files, data sets and lists, and into files. The format of rows is described in docs/data.md.

Every row is checked, images included, and all problems of a source come in one error. Messages name places and types, never contents:
the data may be what somebody wants forgotten.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from PIL import Image

from vgid.artifacts import whole_file, write_bytes_atomic, write_text_atomic
from vgid.data.example import Derived, Example, ImageRef
from vgid.errors import DataError

log = logging.getLogger("vgid")
SUFFIXES = (".jsonl", ".parquet")
"""Endings of data files."""
ROW_GROUP = 128
"""Rows that are written to a parquet file at once; chosen by hand, so that their pictures fit into memory."""
READ_AT_ONCE = 256
"""Rows that are read from a parquet file at once; chosen by hand."""
Rows = str | Path | Iterable[Mapping[str, Any]] | Iterable[Example]
"""A data file or a folder of them; or the rows: a `datasets.Dataset`, mappings, or examples."""
LONGEST = 3
"""Number of the longest rows that a report names."""
WORDS = ("question", "answer", "prompt", "completion", "messages")
"""Columns with text of questions and answers."""
COLUMNS = ("id", "image", "images", "file_name", *WORDS, "subject", "keywords", "tags", "derived")
"""All columns that are read."""
QUESTION_COLUMNS = (("question", "answer"), ("prompt", "completion"), ("messages",))
"""Columns that hold question and answer; one of these groups is needed."""


def load_examples(
    source: Rows, *, skip_bad_rows: bool = False, at_most: int | None = None, seed: int = 0, name: str = "row"
) -> list[Example]:
    """Read and check examples from files, from a `datasets.Dataset`, or from rows in memory.

    Args:
        source: one of

            - a JSONL or parquet file, or a folder with such files; image paths are relative to the file's folder and must stay in it;
            - a `datasets.Dataset`, or any other iterable of mappings with the columns of docs/data.md; an image is a Pillow picture,
              `{"bytes": ..., "path": ...}`, or a path. A Pillow picture is encoded as PNG;
            - a list of `Example`, which is returned as it is: complete and unchecked.
        skip_bad_rows: leave bad rows out, with a warning for each, instead of raising an error.
        at_most: number of rows to draw while reading, so that memory does not grow with the source; None keeps all rows.
        seed: random seed of the draw.
        name: what ids of rows in memory start with, where the rows have none: the third row of `name="forget"` is `forget-3`. Two
            sources of one run need different names.

    Returns:
        The examples, in the order of the source.

    Raises:
        DataError: all problems of the source together: malformed lines, wrong types, missing fields, images that cannot be used. Places
            are `file:line`, or `row N` for rows in memory, counted from 1.
    """
    if isinstance(source, Sequence) and source and all(isinstance(row, Example) for row in source):
        return [row for row in source if isinstance(row, Example)]
    examples, problems, _ = read_all(source, at_most, seed, name)
    if problems and not skip_bad_rows:
        raise DataError.together(problems)
    for problem in problems:
        log.warning("row left out: %s", problem)
    if not examples:
        where = source if isinstance(source, str | Path) else None
        raise DataError(
            "no examples", where=where, expected="at least one good row", got=f"{len(problems)} bad rows" if problems else "none"
        )
    return examples


def rows_of(source: Rows, **options: Any) -> list[Example]:
    """Read rows by `load_examples`, which takes the options; an empty list stays empty.

    Raises:
        DataError: as `load_examples`.
    """
    if isinstance(source, Sequence) and not isinstance(source, str) and not source:
        return []
    return load_examples(source, **options)


SHARD = re.compile(r"(.+?)(-\d{5}-of-\d{5})")
"""File name of one part of a split, as the Hugging Face hub names them: `train-00000-of-00002`."""


def split_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Group data files by the split they belong to.

    A split is named after its file; or after the file's folder, where the file has a name that every data set has: `metadata` (image
    folders) or `train-00000-of-00002`. Files that differ in such numbers only are one split.

    Args:
        paths: data files, and folders of which all data files are taken.

    Returns:
        The files of each split, by its name.

    Raises:
        DataError: a file does not exist, a folder holds no data file, or files of two folders have the same name.
    """
    splits: dict[str, list[Path]] = {}
    for file in (file for path in paths for file in _files(path)):
        there = splits.setdefault(_split_of(file), [])
        if there and (there[0].parent != file.parent or not SHARD.fullmatch(file.stem)):
            raise DataError("two splits have the same name", where=file, got=f"also {there[0]}", fix="rename one of the files")
        there.append(file)
    return splits


def _split_of(file: Path) -> str:
    shard = SHARD.fullmatch(file.stem)
    name = shard[1] if shard else file.stem
    return file.resolve().parent.name if file.stem == "metadata" or (shard and name == "train") else name


def _id_prefix(file: Path) -> str:
    """What ids of a file's rows start with: its split, and its number where the split has several files."""
    shard = SHARD.fullmatch(file.stem)
    return _split_of(file) + (shard[2] if shard else "")


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
        problems: messages about bad rows; empty when all rows can be used.
        longest: places of the longest rows, with their length in characters: question and answer together.
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

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.rows} good rows, {len(self.problems)} problems",
            f"  {self.with_image} with an image ({self.images} different images), {self.text_only} text-only",
            f"  {self.subjects} subjects, {self.with_keywords} rows with keywords",
        ]
        if self.longest:
            lines.append(f"  longest rows: {', '.join(f'{place} ({length} characters)' for place, length in self.longest)}")
        lines += [f"  columns not used: {', '.join(self.unused_columns)}"] if self.unused_columns else []
        return "\n".join([*lines, *self.problems])


def check_examples(path: str | Path) -> DataReport:
    """Read a file or folder and count its rows; problems are listed, not raised.

    Raises:
        DataError: there is no such file, or no data file in the folder.
    """
    examples, problems, unused = read_all(path)
    return report(str(path), examples, problems, unused)


def report(path: str, examples: Iterable[Example], problems: Sequence[DataError], unused: Iterable[str] = ()) -> DataReport:
    """Count examples.

    Args:
        path: file, folder or name of the split, as it is shown.
        examples: the good rows; they are read one at a time.
        problems: one error for each bad row; counted after the last example, so that reading may still add to them.
        unused: names of columns that vgid does not read.

    Returns:
        The counts.
    """
    rows = with_image = with_keywords = 0
    images, subjects, longest = set[str](), set[str](), list[tuple[str, int]]()
    for example in examples:
        rows, with_image, with_keywords = rows + 1, with_image + bool(example.images), with_keywords + bool(example.keywords)
        images |= {ref.fingerprint for ref in example.images}
        subjects |= {example.subject} if example.subject is not None else set()
        longest.append((example.where or example.id, len(example.question) + len(example.answer)))
        longest = sorted(longest, key=lambda row: -row[1])[:LONGEST]
    return DataReport(
        path=path,
        rows=rows,
        with_image=with_image,
        text_only=rows - with_image,
        images=len(images),
        subjects=len(subjects),
        with_keywords=with_keywords,
        unused_columns=tuple(sorted(unused)),
        problems=tuple(str(problem) for problem in problems),
        longest=tuple(longest),
    )


def check_disjoint(forget: Sequence[Example], retain: Sequence[Example], names: tuple[str, str] = ("forget set", "retain set")) -> None:
    """Make sure that nothing is to be both forgotten and retained.

    Args:
        forget: rows to forget.
        retain: rows to retain.
        names: what the two sets are called in errors.

    Raises:
        DataError: a question about the same images is in both sets (letter case and white space do not count), or an id is: methods and
            attacks keep what they compute about a row under its id.
    """

    def key(example: Example) -> tuple[tuple[str, ...], str]:
        return tuple(ref.fingerprint for ref in example.images), " ".join(example.question.split()).casefold()

    forgotten, ids = {key(example): example for example in forget}, {example.id: example for example in forget}
    problems = []
    for kept in retain:
        if (found := forgotten.get(key(kept))) is not None:
            same, fix = "question about the same images", "remove it from one of them"
        elif (found := ids.get(kept.id)) is not None:
            same, fix = "id", "give every row a different id"
        else:
            continue
        problems.append(
            DataError(
                f"the same {same} is in the {names[0]} and in the {names[1]}",
                where=kept.where or kept.id,
                expected="sets that have nothing in common",
                got=f"also at {found.where or found.id}",
                fix=fix,
            )
        )
    if problems:
        raise DataError.together(problems)


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
    words = {name: pa.string() for name in ("id", "question", "answer", "subject")}
    lists = {"images": pa.list_(picture), "keywords": pa.list_(pa.string()), "tags": pa.list_(pa.string())}
    schema = pa.schema({**words, **lists, "derived": pa.struct({"from": pa.string(), "kind": pa.string()})})
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


def _parquet_row(example: Example) -> dict[str, Any]:
    row = {name: getattr(example, name) for name in ("id", "question", "answer", "subject")}
    images = [{"bytes": ref.read(), "path": None} for ref in example.images]
    return row | {"images": images, "keywords": list(example.keywords), "tags": list(example.tags), "derived": _origin(example)}


def _origin(example: Example) -> dict[str, str] | None:
    return {"from": example.derived.source, "kind": example.derived.kind} if example.derived else None


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
            name = f"images/{hashlib.sha256(content).hexdigest()[:20]}{_suffix(content)}"
            if not (path.parent / name).exists():
                write_bytes_atomic(path.parent / name, content, sync=False)
            names[ref] = name
    write_text_atomic(path, "".join(json.dumps(_as_row(example, names), ensure_ascii=False) + "\n" for example in examples))


def _as_row(example: Example, names: Mapping[ImageRef, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example.id}
    if example.images:
        paths = [names[ref] for ref in example.images]
        row |= {"image": paths[0]} if len(paths) == 1 else {"images": paths}
    row |= {"question": example.question, "answer": example.answer}
    row |= {"subject": example.subject} if example.subject is not None else {}
    row |= {"derived": _origin(example)} if example.derived else {}
    return row | {name: list(value) for name, value in (("keywords", example.keywords), ("tags", example.tags)) if value}


def _suffix(content: bytes) -> str:
    starts = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp", b"II*": ".tif", b"MM\0*": ".tif"}
    return next((suffix for start, suffix in starts.items() if content.startswith(start)), ".img")


# -- reading --------------------------------------------------------------------------------------------------------------


class _RawRow(NamedTuple):
    """One row as it was found: its place for messages, its default id, the folder of its images, and its content.

    `content` is a function for a row that is yet to be parsed, and raises where that fails. Without a folder, image paths may lead
    anywhere: the caller gave them, not a file from elsewhere.
    """

    where: str
    id: str
    folder: Path | None
    content: Any


def read_all(source: Rows, at_most: int | None = None, seed: int = 0, name: str = "row") -> tuple[list[Example], list[DataError], set[str]]:
    """Read rows and collect their problems. The text of all rows is checked, and the images of those that are drawn.

    Args:
        source: as in `load_examples`.
        at_most: number of rows to draw while reading; None keeps all.
        seed: random seed of the draw.
        name: what ids of rows in memory start with.

    Returns:
        The good rows, one error for each bad row in the order of the source, and names of columns that vgid does not read.

    Raises:
        DataError: there is no such file, or no data file in the folder; or a data set lacks the columns of questions and answers.
    """
    problems: list[tuple[int, DataError]] = []
    unused: set[str] = set()
    raw = _file_rows(Path(source)) if isinstance(source, str | Path) else _memory_rows(source, name)
    shown = str(source) if isinstance(source, str | Path) else f"{name}s"
    examples = draw_rows(shown, _good_rows(raw, problems, unused), problems, at_most, seed)
    return examples, [problem for _, problem in sorted(problems, key=lambda row: row[0])], unused


def draw_rows(
    name: str, rows: Iterable[tuple[int, Example]], problems: list[tuple[int, DataError]], at_most: int | None, seed: int
) -> list[Example]:
    """Keep all rows, or draw `at_most` of them while reading; then check the images of those that are kept.

    Args:
        name: name of the source, for the log.
        rows: rows with their numbers.
        problems: errors with the numbers of their rows; rows with images that cannot be used are added.
        at_most: number of rows to draw; None keeps all.
        seed: random seed of the draw.

    Returns:
        The rows that can be used, in their order.
    """
    rng = Random(f"rows/{seed}")
    drawn: list[tuple[int, Example]] = []
    seen = 0
    for number, example in rows:
        seen += 1
        if at_most is None or len(drawn) < at_most:
            drawn.append((number, example))
        elif (place := rng.randrange(seen)) < at_most:  # so that each row read so far is as likely to be among the drawn ones
            drawn[place] = (number, example)
    examples = []
    checked: dict[ImageRef, DataError | None] = {}
    for number, example in sorted(drawn, key=lambda row: row[0]):
        try:
            _check_images(example, checked)
        except DataError as problem:
            problems.append((number, problem))
            continue
        examples.append(example)
    if seen > len(drawn):
        log.info("%s: %d of %d rows drawn", name, len(drawn), seen)
    return examples


def _good_rows(raw: Iterable[_RawRow], problems: list[tuple[int, DataError]], unused: set[str]) -> Iterator[tuple[int, Example]]:
    """Rows whose text can be used, numbered over all files; the errors of all others are added to the problems."""
    ids: dict[str, str] = {}
    # Keys are paths and digests: an image as the key would keep its own entry alive.
    refs: WeakValueDictionary[Path | str, ImageRef] = WeakValueDictionary()
    for number, row in enumerate(raw, 1):
        try:
            example = _example(row, unused)
            if example.id in ids:
                raise DataError("id used twice", where=row.where, got=f"also at {ids[example.id]}", fix="give every row a different id")
        except DataError as problem:
            problems.append((number, problem))
            continue
        ids[example.id] = row.where
        # Many rows hold the same picture; one copy of its bytes is enough.
        yield number, replace(example, images=tuple(refs.setdefault(ref.path or ref.fingerprint, ref) for ref in example.images))


def _memory_rows(source: Iterable[Any], name: str) -> Iterator[_RawRow]:
    if isinstance(source, Mapping):  # a DatasetDict too
        raise DataError(
            "a mapping is not a list of rows",
            expected="a data set, or a list of rows",
            got=type(source).__name__,
            fix='give one of its splits, such as data["train"]; or put a single row into a list',
        )
    columns = getattr(source, "column_names", None)
    if columns and not any(set(group) <= set(columns) for group in QUESTION_COLUMNS):
        raise DataError(
            "the data set lacks columns of questions and answers",
            expected=" or ".join(" and ".join(group) for group in QUESTION_COLUMNS),
            got=", ".join(columns),
            fix="rename its columns, with rename_column for example",
        )
    number = 0
    try:
        for number, row in enumerate(source, 1):
            # A data set gives None for what a row does not have.
            content = {key: value for key, value in row.items() if value is not None} if isinstance(row, Mapping) else row
            yield _RawRow(f"row {number}", f"{name}-{number}", None, content)
    except (OSError, SyntaxError) as error:  # a data set decodes images while it is read
        raise DataError(
            "the data set cannot be read",
            where=f"row {number + 1}",
            got=type(error).__name__,
            fix="look at this row's images; leave the row out, or export its images again",
        ) from error


def _file_rows(path: Path) -> Iterator[_RawRow]:
    for file in _files(path):
        rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_lines(file)
        yield from (_RawRow(f"{file}:{number}", f"{_id_prefix(file)}-{number}", file.parent, row) for number, row in rows)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(child for child in path.iterdir() if child.suffix in SUFFIXES)
        if not files:
            raise DataError(
                "no data file in the folder", where=path, expected="*.jsonl or *.parquet", fix="see docs/data.md for the format"
            )
        return files
    if not path.exists():
        raise DataError("no such file or folder", where=path, fix="check the path")
    if path.suffix not in SUFFIXES:
        raise DataError("unknown data format", where=path, expected=" or ".join(SUFFIXES), got=path.suffix or "no suffix")
    if not path.stat().st_size:
        raise DataError("the data file is empty", where=path, expected="at least one row", got="0 bytes")
    return [path]


def _json_lines(file: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Lines with their numbers; each is parsed when its function is called, so that a bad one stops no others."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parse(line, f"{file}:{number}")


def _parse(line: bytes, where: str) -> Callable[[], Any]:
    def parse() -> Any:
        try:
            return json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError("line is not UTF-8", where=where, got=f"byte {error.start} of the line", fix="save the file as UTF-8") from None
        except ValueError as error:
            at = getattr(error, "colno", None)
            raise DataError(
                "malformed JSON", where=where, expected="one JSON object on each line", got=f"{getattr(error, 'msg', error)}, column {at}"
            ) from None

    return parse


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20)  # else Arrow reads ahead and holds whole files
        number = 0
        for batch in table.iter_batches(batch_size=READ_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("parquet file cannot be read", where=file, got=str(error).splitlines()[0], fix="write the file again") from error


def _example(raw: _RawRow, unused: set[str]) -> Example:
    row, where = raw.content() if callable(raw.content) else raw.content, raw.where
    if isinstance(row, Example):
        return row
    if not isinstance(row, dict):
        raise DataError("row is not an object", where=where, expected='{"question": ..., "answer": ...}', got=type(row).__name__)
    unused |= row.keys() - set(COLUMNS)
    question, answer, extra = _turns(row, where)
    return Example(
        id=_text(row, "id", where) if "id" in row else raw.id,
        question=question,
        answer=answer,
        images=tuple(_image(value, raw.folder, where) for value in (*_image_values(row, where), *extra)),
        subject=_text(row, "subject", where) if row.get("subject") is not None else None,
        keywords=_texts(row, "keywords", where),
        tags=_texts(row, "tags", where),
        derived=_derived(row, where),
        where=where,
    )


def _derived(row: Mapping[str, Any], where: str) -> Derived | None:
    value = row.get("derived")
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"from", "kind"} or not all(isinstance(each, str) for each in value.values()):
        raise DataError("derived has the wrong type", where=where, expected='{"from": id, "kind": text}', got=type(value).__name__)
    return Derived(value["from"], value["kind"])


def _turns(row: dict[str, Any], where: str) -> tuple[str, str, list[Any]]:
    """Question, answer, and images found inside messages."""
    given = [name for name in WORDS if name in row]
    pair = ("prompt", "completion") if "prompt" in given or "completion" in given else ("question", "answer")
    if set(given) - set(pair) and given != ["messages"]:
        raise DataError(
            f"row has both {' and '.join(given)}", where=where, expected="question and answer, prompt and completion, or messages"
        )
    if given != ["messages"] and not any(isinstance(row.get(name), list) for name in ("prompt", "completion")):
        return _text(row, pair[0], where), _text(row, pair[1], where), []
    return _conversation(row["messages"] if "messages" in row else _joined(row, where), where)


def _joined(row: dict[str, Any], where: str) -> list[Any]:
    """Prompt and completion that are lists of turns, as one list."""
    if not all(isinstance(row.get(name), list) for name in ("prompt", "completion")):
        kinds = " and ".join(type(row.get(name)).__name__ for name in ("prompt", "completion"))
        raise DataError("prompt and completion are of different kinds", where=where, expected="two texts, or two lists of turns", got=kinds)
    return [*row["prompt"], *row["completion"]]


def _conversation(messages: Any, where: str) -> tuple[str, str, list[Any]]:
    roles = [m.get("role") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else None
    if roles != ["user", "assistant"] or len(messages) != 2:
        got = f"turns of {', '.join(map(str, roles))}" if roles is not None else type(messages).__name__
        raise DataError("messages of this shape are not supported", where=where, expected="one user turn, then one assistant turn", got=got)
    texts, images = [], []
    for turn in messages:
        content = turn.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not all(isinstance(p, dict) and p.get("type") in ("text", "image") for p in parts):
            raise DataError(
                f"content of the {turn['role']} turn cannot be read", where=where, expected="text, or a list of text and image parts"
            )
        said = [p.get("text") for p in parts if p["type"] == "text"]
        texts.append(_text({turn["role"]: "\n".join(s for s in said if isinstance(s, str))}, turn["role"], where))
        # An image part without content stands for the next one of the row's own images.
        images += [p["image"] for p in parts if p["type"] == "image" and p.get("image") is not None]
    return texts[0], texts[1], images


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if value is None:
        raise DataError(f"{name} is missing", where=where, expected=f"{name}: text", got=f"fields {', '.join(sorted(row)) or 'none'}")
    if not isinstance(value, str):
        raise DataError(f"{name} has the wrong type", where=where, expected="text", got=type(value).__name__)
    if not value.strip():
        raise DataError(f"{name} is empty", where=where, expected="text", got="only white space" if value else "an empty text")
    return value.strip()


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = row.get(name)
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(f"{name} has the wrong type", where=where, expected="a list of texts", got=type(values).__name__)
    return tuple(values)


def _image_values(row: Mapping[str, Any], where: str) -> list[Any]:
    given = [name for name in ("image", "images", "file_name") if row.get(name) is not None]
    if len(given) > 1:
        raise DataError(f"row has both {' and '.join(given)}", where=where, expected="one of them")
    if given and given != ["images"]:
        return [row[given[0]]]
    values = row.get("images")
    if values is not None and not isinstance(values, list | tuple):
        raise DataError("images has the wrong type", where=where, expected="a list of images", got=type(values).__name__)
    return list(values or ())


def _image(value: Any, folder: Path | None, where: str) -> ImageRef:
    if isinstance(value, Image.Image):
        try:
            return ImageRef.from_picture(value)
        except DataError as problem:
            raise _at(problem, where) from None
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return ImageRef(data=value["bytes"])
    if isinstance(value, dict):
        value = value.get("path")
    if folder is None and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        got = type(value).__name__ if value else "nothing"
        accepted = "a path, or {bytes, path}" if folder is not None else "a picture, a path, or {bytes, path}"
        raise DataError("image has the wrong type", where=where, expected=accepted, got=got)
    if "://" in value:
        raise DataError("image is an address", where=where, expected="a path below the data file's folder", fix="download it first")
    if folder is None:
        return ImageRef(path=Path(value).resolve())
    path = (folder / value).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(
            "image lies outside the data folder",
            where=where,
            expected=f"a path below {folder.resolve()}",
            got=value,
            fix="copy the images beside the data file",
        )
    return ImageRef(path=path)


def _check_images(example: Example, checked: dict[ImageRef, DataError | None]) -> None:
    """Decode each different image once; a bad one is reported for every row that uses it."""
    for ref in example.images:
        if ref not in checked:
            try:
                ref.open()
                checked[ref] = None
            except DataError as problem:
                checked[ref] = problem
        bad = checked[ref]
        if bad is not None:
            raise _at(bad, example.where)


def _at(problem: DataError, where: str) -> DataError:
    return DataError(problem.problem, where=where, expected=problem.expected, got=problem.got, fix=problem.fix)
