"""Examples out of files and into files: JSONL, parquet, or a folder of these. The format is described in docs/data.md.

Every row is checked, images included, and all problems of a file come in one error. Messages name places and types, never contents:
the data may be what somebody wants forgotten.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from weakref import WeakValueDictionary

from vgid.artifacts import whole_file, write_bytes_atomic, write_text_atomic
from vgid.data.example import Example, ImageRef
from vgid.errors import DataError

log = logging.getLogger("vgid")
SUFFIXES = (".jsonl", ".parquet")
ROW_GROUP = 128
"""Rows that are written to a parquet file at once."""
Rows = Path | Sequence[Example]
"""Where rows are, or the rows themselves."""
LONGEST = 3
"""How many of the longest rows a report names."""
WORDS = ("question", "answer", "prompt", "completion", "messages")
COLUMNS = ("id", "image", "images", "file_name", *WORDS, "subject", "keywords", "tags")


def load_examples(path: str | Path, *, skip_bad_rows: bool = False, at_most: int | None = None, seed: int = 0) -> list[Example]:
    """Read examples from a JSONL or parquet file, or from all such files in a folder.

    Args:
        path: the file or folder; image paths are relative to the file's folder and must stay inside it.
        skip_bad_rows: leave bad rows out, with a warning that lists them, in place of an error.
        at_most: draw so many rows while reading, so that memory does not grow with the file; None keeps all.
        seed: of the draw.

    Raises:
        DataError: with every problem of the file: malformed lines, wrong types, missing fields, images that cannot be used.
    """
    examples, problems, _ = read_all(Path(path), at_most, seed)
    if problems and not skip_bad_rows:
        raise DataError.together(problems)
    for problem in problems:
        log.warning("row left out: %s", problem)
    if not examples:
        raise DataError(
            "no examples", where=path, expected="at least one good row", got=f"{len(problems)} bad rows" if problems else "none"
        )
    return examples


def rows_of(source: Rows) -> list[Example]:
    """Rows that are there already, or read by `load_examples`."""
    return load_examples(source) if isinstance(source, Path) else list(source)


SHARD = re.compile(r"(.+?)(-\d{5}-of-\d{5})")


def split_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Data files by the split they are of: a file's own name; that of its folder where it has a name that every data set has.

    Those names are `metadata` (image folders) and `train-00000-of-00002`; files that differ only in such numbers are one split. Of a
    folder all data files in it are taken.

    Raises:
        DataError: there is no such file, or none in a folder, or files of two folders are called the same.
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


def _said(file: Path) -> str:
    """What ids of a file's rows start with: its split, and its number where the split has several files."""
    shard = SHARD.fullmatch(file.stem)
    return _split_of(file) + (shard[2] if shard else "")


@dataclass(frozen=True)
class DataReport:
    """What `vgid data check` says about a file; `problems` is empty when it can be used."""

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
    """Places of the longest rows, with their characters: question and answer together."""

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
    """Read everything and count; problems are listed, not raised.

    Raises:
        DataError: there is no such file, or no data file in the folder.
    """
    examples, problems, unused = read_all(Path(path))
    return report(str(path), examples, problems, unused)


def report(path: str, examples: Iterable[Example], problems: Sequence[DataError], unused: Iterable[str] = ()) -> DataReport:
    """Count examples, one at a time; `problems` are counted when all examples were seen."""
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


def check_disjoint(forget: Sequence[Example], retain: Sequence[Example]) -> None:
    """Make sure that nothing is to be both forgotten and retained.

    Raises:
        DataError: the same images with the same question stand in both sets.
    """

    def key(example: Example) -> tuple[tuple[str, ...], str]:
        return tuple(ref.fingerprint for ref in example.images), " ".join(example.question.split()).casefold()

    forgotten = {key(example): example for example in forget}
    both = [(forgotten[k], example) for example in retain if (k := key(example)) in forgotten]
    if both:
        raise DataError.together(
            [
                DataError(
                    "the same question about the same images is in the forget set and in the retain set",
                    where=kept.where or kept.id,
                    expected="sets that have nothing in common",
                    got=f"also at {gone.where or gone.id}",
                    fix="remove it from one of them",
                )
                for gone, kept in both
            ]
        )


def write_parquet(path: str | Path, examples: Iterable[Example]) -> int:
    """Write the parquet that `load_examples` reads, pictures' bytes included, a few rows at a time; gives the number of rows.

    The file appears only when all is written. What comes back is equal, but for places and for pictures being bytes.

    Raises:
        DataError: an id stands twice, or there are no examples.
        OutputError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    words = {name: pa.string() for name in ("id", "question", "answer", "subject")}
    schema = pa.schema({**words, "images": pa.list_(picture), "keywords": pa.list_(pa.string()), "tags": pa.list_(pa.string())})
    ids: set[str] = set()
    source = iter(examples)
    with whole_file(Path(path)) as unfinished, parquet.ParquetWriter(unfinished, schema, dictionary_pagesize_limit=2**26) as writer:
        while chunk := list(islice(source, ROW_GROUP)):
            for example in chunk:
                if example.id in ids:
                    raise DataError("id used twice", where=example.where or None, fix="give every row an id of its own")
                ids.add(example.id)
            writer.write_table(pa.Table.from_pylist([_parquet_row(example) for example in chunk], schema=schema))
        if not ids:
            raise DataError("no examples to write", where=path, expected="at least one")
    return len(ids)


def _parquet_row(example: Example) -> dict[str, Any]:
    row = {name: getattr(example, name) for name in ("id", "question", "answer", "subject")}
    images = [{"bytes": ref.read(), "path": None} for ref in example.images]
    return row | {"images": images, "keywords": list(example.keywords), "tags": list(example.tags)}


def write_examples(path: str | Path, examples: Sequence[Example]) -> None:
    """Write the JSONL that `load_examples` reads; images go into `images/` beside it, named by their content.

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
    return row | {name: list(value) for name, value in (("keywords", example.keywords), ("tags", example.tags)) if value}


def _suffix(content: bytes) -> str:
    starts = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp", b"II*": ".tif", b"MM\0*": ".tif"}
    return next((suffix for start, suffix in starts.items() if content.startswith(start)), ".img")


# -- reading --------------------------------------------------------------------------------------------------------------


def read_all(path: Path, at_most: int | None = None, seed: int = 0) -> tuple[list[Example], list[DataError], set[str]]:
    """Good rows, problems, and names of columns that are not used; `at_most` so many rows, drawn by the seed while reading.

    The words of all rows are checked, and the pictures of those that are drawn.

    Raises:
        DataError: there is no such file, or no data file in the folder.
    """
    problems: list[tuple[int, DataError]] = []
    unused: set[str] = set()
    examples = draw_rows(str(path), _good_rows(path, problems, unused), problems, at_most, seed)
    return examples, [problem for _, problem in sorted(problems, key=lambda row: row[0])], unused


def draw_rows(
    name: str, rows: Iterable[tuple[int, Example]], problems: list[tuple[int, DataError]], at_most: int | None, seed: int
) -> list[Example]:
    """All rows, or `at_most` of them drawn while reading, in their order; those with pictures that cannot be used become problems."""
    rng = Random(f"rows/{seed}")
    drawn: list[tuple[int, Example]] = []
    seen = 0
    for number, example in rows:
        seen += 1
        if at_most is None or len(drawn) < at_most:
            drawn.append((number, example))
        elif (place := rng.randrange(seen)) < at_most:  # so that each row seen so far is as likely to be among the drawn ones
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


def _good_rows(path: Path, problems: list[tuple[int, DataError]], unused: set[str]) -> Iterator[tuple[int, Example]]:
    """Rows whose words can be used, numbered over all files; what is wrong with others is added to the problems."""
    ids: dict[str, str] = {}
    # By something other than the picture itself, which as a key would hold what nobody else does any more.
    refs: WeakValueDictionary[Path | str, ImageRef] = WeakValueDictionary()
    number = 0
    for file in _files(path):
        for where, row in _rows(file):
            number += 1
            try:
                example = _example(row() if callable(row) else row, file, where, unused)
                if example.id in ids:
                    raise DataError("id used twice", where=where, got=f"also at {ids[example.id]}", fix="give every row an id of its own")
            except DataError as problem:
                problems.append((number, problem))
                continue
            ids[example.id] = where
            # Many rows hold the same picture; one copy of its bytes is enough.
            yield number, replace(example, images=tuple(refs.setdefault(ref.path or ref.fingerprint, ref) for ref in example.images))


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


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Rows with their places; one that cannot be parsed comes as a function that raises."""
    if file.suffix == ".parquet":
        yield from _parquet_rows(file)
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{file}:{number}"
                yield where, _parse(line, where)


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


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**20)  # else Arrow reads ahead and holds whole files
        number = 0
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}:{number}", {name: value for name, value in row.items() if value is not None}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("parquet file cannot be read", where=file, got=str(error).splitlines()[0], fix="write the file again") from error


def _example(row: Any, file: Path, where: str, unused: set[str]) -> Example:
    if not isinstance(row, dict):
        raise DataError("row is no object", where=where, expected='{"question": ..., "answer": ...}', got=type(row).__name__)
    unused |= row.keys() - set(COLUMNS)
    question, answer, extra = _turns(row, where)
    return Example(
        id=_text(row, "id", where) if "id" in row else f"{_said(file)}-{where.rpartition(':')[2]}",
        question=question,
        answer=answer,
        images=tuple(_image(value, file.parent, where) for value in (*_image_values(row, where), *extra)),
        subject=_text(row, "subject", where) if row.get("subject") is not None else None,
        keywords=_texts(row, "keywords", where),
        tags=_texts(row, "tags", where),
        where=where,
    )


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
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise DataError(f"{name} has the wrong type", where=where, expected="a list of texts", got=type(values).__name__)
    return tuple(values)


def _image_values(row: Mapping[str, Any], where: str) -> list[Any]:
    given = [name for name in ("image", "images", "file_name") if row.get(name) is not None]
    if len(given) > 1:
        raise DataError(f"row has both {' and '.join(given)}", where=where, expected="one of them")
    if given and given != ["images"]:
        return [row[given[0]]]
    values = row.get("images")
    if values is not None and not isinstance(values, list):
        raise DataError("images has the wrong type", where=where, expected="a list of images", got=type(values).__name__)
    return values or []


def _image(value: Any, folder: Path, where: str) -> ImageRef:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return ImageRef(data=value["bytes"])
    if isinstance(value, dict):
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        got = type(value).__name__ if value else "nothing"
        raise DataError("image has the wrong type", where=where, expected="a path, or {bytes, path}", got=got)
    if "://" in value:
        raise DataError("image is an address", where=where, expected="a path below the data file's folder", fix="download it first")
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
            raise DataError(bad.problem, where=example.where, expected=bad.expected, got=bad.got, fix=bad.fix)
