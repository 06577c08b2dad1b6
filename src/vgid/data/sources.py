"""Examples out of files, data sets and lists. The formats of rows are described in docs/data.md.

Every row is checked, images included, and all problems of a source come in one error. Messages name places and types, never contents:
the data may be what somebody wants forgotten.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from vgid.data.example import Example, ImageRef
from vgid.data.pictures import SUFFIXES, check_pictures
from vgid.data.problems import SHOWN, Notes, Problems, TooManyProblemsError
from vgid.data.readers import arrow_rows, csv_rows, json_rows, memory, tar_rows
from vgid.data.readers.base import RawRow, check_file
from vgid.data.readers.base import Rows as FileRows
from vgid.data.report import DataReport, report
from vgid.data.rows import Reading, RowReader
from vgid.errors import DataError

log = logging.getLogger("vgid")
Rows = str | Path | Iterable[Mapping[str, Any]] | Iterable[Example]
"""A data file or a folder of them; or the rows: a `datasets.Dataset`, mappings, or examples."""
READERS: Mapping[str, Callable[[Path], FileRows]] = {
    suffix: reader.rows for reader in (json_rows, csv_rows, arrow_rows, tar_rows) for suffix in reader.SUFFIXES
}
"""The reader of each kind of file, by the ending of its name."""
NOT_DATA = ("dataset_info.json", "dataset_infos.json", arrow_rows.STATE, arrow_rows.SPLITS)
"""Files beside data that describe them."""
SHARD = re.compile(r"(.+?)(-\d{5}-of-\d{5})")
"""File name of one part of a split, as the Hugging Face hub names them: `train-00000-of-00002`."""
TAR_SHARD = re.compile(r"(.+?)([-_.]\d{4,8})")
"""The same as WebDataset names them: `train-000000.tar`."""


def load_examples(
    source: Rows,
    *,
    skip_bad_rows: bool = False,
    at_most: int | None = None,
    seed: int = 0,
    name: str = "row",
    turns: Literal["last", "all"] = "last",
    need_answers: bool = True,
    image_root: str | Path | None = None,
) -> list[Example]:
    """Read and check examples from files, from a `datasets.Dataset`, or from rows in memory.

    Args:
        source: one of

            - a file of one of the kinds of docs/data.md, a folder with such files, or a folder of `save_to_disk`; image paths are relative
              to the file's folder and must stay in it;
            - a `datasets.Dataset`, or any other iterable of mappings with the columns of docs/data.md; an image is a Pillow picture,
              `{"bytes": ..., "path": ...}`, or a path. A Pillow picture is encoded as PNG;
            - a list of `Example`, which is returned as it is: complete and unchecked.
        skip_bad_rows: leave bad rows out, with a warning for each, instead of raising an error.
        at_most: number of rows to draw while reading, so that memory does not grow with the source; None keeps all rows.
        seed: random seed of the draw.
        name: what ids of rows in memory start with, where the rows have none: the third row of `name="forget"` is `forget-3`. Two
            sources of one run need different names.
        turns: of a conversation, `last` takes the last answer, with what was said before as context; `all` makes a row of each answer.
        need_answers: whether a row without an answer is an error.
        image_root: the folder that image paths are relative to and must stay in; None for the data file's own folder.

    Returns:
        The examples, in the order of the source.

    Raises:
        DataError: all problems of the source together: malformed lines, wrong types, missing fields, images that cannot be used. Places
            are `file:line`, or `row N` for rows in memory, counted from 1.
    """
    if isinstance(source, Sequence) and source and all(isinstance(row, Example) for row in source):
        return [row for row in source if isinstance(row, Example)]
    reading = Reading(turns, need_answers, Path(image_root) if image_root is not None else None)
    found = read_all(source, at_most, seed, name, reading)
    return found.usable(source if isinstance(source, str | Path) else None, skip_bad_rows=skip_bad_rows)


def rows_of(source: Rows, **options: Any) -> list[Example]:
    """Read rows by `load_examples`, which takes the options; an empty list stays empty.

    Raises:
        DataError: as `load_examples`.
    """
    if isinstance(source, Sequence) and not isinstance(source, str) and not source:
        return []
    return load_examples(source, **options)


class Found(NamedTuple):
    """What was read from a source.

    Attributes:
        examples: the good rows.
        problems: one error for each bad row, in the order of the source.
        notes: what was not read, or in another form.
    """

    examples: list[Example]
    problems: list[DataError]
    notes: Notes

    def usable(self, where: str | Path | None, *, skip_bad_rows: bool) -> list[Example]:
        """Return the good rows, after warnings of what was found.

        Args:
            where: the source, for messages.
            skip_bad_rows: whether bad rows are left out; otherwise they are an error.

        Raises:
            DataError: there are bad rows, all of which it lists, or no good ones.
        """
        if self.problems and not skip_bad_rows:
            raise DataError.together(self.problems)
        for problem in self.problems[:SHOWN]:
            log.warning("row left out: %s", problem)
        if len(self.problems) > SHOWN:
            log.warning("... and %d more rows left out", len(self.problems) - SHOWN)
        for note in self.notes:
            log.warning("%s%s", f"{where}: " if where else "", note)
        if not self.examples:
            got = f"{len(self.problems)} bad rows" if self.problems else "none"
            raise DataError("no examples", where=where, expected="at least one good row", got=got)
        return self.examples


def read_all(source: Rows, at_most: int | None = None, seed: int = 0, name: str = "row", reading: Reading | None = None) -> Found:
    """Read rows and collect their problems. The text of all rows is checked, and the images of those that are drawn.

    Args:
        source: as in `load_examples`.
        at_most: number of rows to draw while reading; None keeps all.
        seed: random seed of the draw.
        name: what ids of rows in memory start with.
        reading: how rows are read; None for the defaults of `load_examples`.

    Returns:
        The good rows, one error for each bad row, and what was not read.

    Raises:
        DataError: there is no such file, or no data file in the folder; or a data set lacks the columns of questions and answers.
    """
    problems, notes = Problems(), Notes()
    if isinstance(source, str | Path):
        shown, rows = str(source), _file_rows(data_files(Path(source)))
    else:
        shown, rows = f"{name}s", memory.rows(source, name)
    examples = draw_rows(shown, _texts(rows, problems, notes, reading), problems, at_most, seed, notes)
    return Found(examples, list(problems), notes)


def stream(files: Iterable[Path], problems: Problems, notes: Notes, reading: Reading | None = None) -> Iterator[Example]:
    """Read and check rows one at a time, images included.

    Args:
        files: data files and folders of `save_to_disk`, as `data_files` lists them; their ids must differ.
        problems: errors of bad rows are added to it.
        notes: what was not read, or in another form, is counted in it.
        reading: how rows are read; None for the defaults of `load_examples`.

    Yields:
        The good rows.

    Raises:
        DataError: as `read_all`.
    """
    return checked(_texts(_file_rows(files), problems, notes, reading), problems, notes)


def draw_rows(
    name: str,
    rows: Iterable[tuple[int, Example]],
    problems: Problems,
    at_most: int | None,
    seed: int,
    notes: Notes | None = None,
) -> list[Example]:
    """Keep all rows, or draw `at_most` of them while reading; the images of those that are kept are checked.

    Args:
        name: name of the source, for the log.
        rows: rows with their numbers.
        problems: errors of rows with images that cannot be used are added to it.
        at_most: number of rows to draw; None keeps all.
        seed: random seed of the draw.
        notes: animated images are counted in it.

    Returns:
        The rows that can be used, in their order.
    """
    notes = notes or Notes()
    if at_most is None:
        return list(checked(rows, problems, notes))
    rng = Random(f"rows/{seed}")
    drawn: list[tuple[int, Example]] = []
    seen = 0
    for number, example in rows:
        seen += 1
        if len(drawn) < at_most:
            drawn.append((number, example))
        elif (place := rng.randrange(seen)) < at_most:  # so that each row read so far is as likely to be among the drawn ones
            drawn[place] = (number, example)
    if seen > len(drawn):
        log.info("%s: %d of %d rows drawn", name, len(drawn), seen)
    return list(checked(sorted(drawn, key=lambda row: row[0]), problems, notes))


def checked(rows: Iterable[tuple[int, Example]], problems: Problems, notes: Notes) -> Iterator[Example]:
    """Check the images of rows.

    Args:
        rows: rows with their numbers.
        problems: errors of rows with images that cannot be used are added to it.
        notes: animated images are counted in it.

    Yields:
        The rows whose images can be used.
    """
    known: dict[ImageRef, DataError | None] = {}
    for number, example in rows:
        try:
            check_pictures(example.images, example.where, known, notes)
        except DataError as problem:
            try:
                problems.add(number, problem)
            except TooManyProblemsError:
                return
            continue
        yield example


def _texts(rows: Iterable[RawRow], problems: Problems, notes: Notes, reading: Reading | None) -> Iterator[tuple[int, Example]]:
    """Rows whose text can be used, numbered from 1; the errors of all others are added to the problems."""
    reader = RowReader(reading or Reading(), notes)
    ids: dict[str, str] = {}
    # Keys are paths and digests: an image as the key would keep its own entry alive.
    refs: WeakValueDictionary[Path | str, ImageRef] = WeakValueDictionary()
    try:
        for number, row in enumerate(rows, 1):
            try:
                examples = reader.read(row)
                for example in examples:
                    if (other := ids.setdefault(example.id, row.where)) is not row.where:
                        fix = "give every row a different id, or none: rows without an id are numbered"
                        raise DataError("id used twice", where=row.where, got=f"also at {other}", fix=fix)
            except DataError as problem:
                problems.add(number, problem)
                continue
            # Many rows hold the same picture; one copy of its bytes is enough.
            for example in examples:
                images = tuple(refs.setdefault(ref.path or ref.fingerprint, ref) for ref in example.images)
                yield number, replace(example, images=images) if images else example
    except TooManyProblemsError:
        return


def _file_rows(files: Iterable[Path]) -> Iterator[RawRow]:
    for file in files:
        saved = file.is_dir()
        rows = arrow_rows.saved_rows(file) if saved else READERS[_suffix(file)](file)
        prefix, folder = _id_prefix(file), file if saved else file.parent
        for number, row in rows:
            yield RawRow(f"{file}:{number}", f"{prefix}-{number}", folder, row)


# -- files and splits -----------------------------------------------------------------------------------------------------


def data_files(path: Path) -> list[Path]:
    """Return the data files that a path stands for: itself, or those in the folder, sorted by name.

    Raises:
        DataError: there is no such file, none in the folder, an unknown kind of file, a folder with several splits, or one that lacks a
            part of a split.
    """
    if not path.is_dir():
        check_file(path) if _suffix(path) or not path.exists() else None
        if not _suffix(path):
            known = ", ".join(READERS)
            raise DataError("unknown data format", where=path, expected=f"one of {known}", got=path.suffix or "no suffix")
        return [path]
    if (path / arrow_rows.STATE).is_file():
        return [path]
    if (path / arrow_rows.SPLITS).is_file():
        names = ", ".join(sorted(child.name for child in path.iterdir() if child.is_dir()))
        raise DataError("the folder holds several splits", where=path, expected="one of them", got=names, fix=f"give one of them: {names}")
    files = sorted(child for child in path.iterdir() if _suffix(child) and child.name not in NOT_DATA and not child.name.startswith("."))
    if not files:
        raise DataError(
            "no data file in the folder", where=path, expected=", ".join(f"*{suffix}" for suffix in READERS), fix=_instead(path)
        )
    for file in files:
        check_file(file)
    _check_shards(files)
    return files


def _check_shards(files: Sequence[Path]) -> None:
    """Raises:
    DataError: a part of a split is missing, whose number the names of the others tell.
    """
    there: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if found := SHARD.fullmatch(_stem(file)):
            number, count = (int(each) for each in found[2].removeprefix("-").split("-of-"))
            there.setdefault((found[1], count), set()).add(number)
    for (name, count), numbers in there.items():
        if len(numbers) < count:
            missing = next(number for number in range(count) if number not in numbers)
            raise DataError(
                "a part of the split is missing",
                where=files[0].parent,
                expected=f"{count} files, {name}-{missing:05d}-of-{count:05d} among them",
                got=str(len(numbers)),
                fix="copy it there, or give the files one by one",
            )


def _instead(folder: Path) -> str:
    """What may be meant by a folder without data files."""
    below = sorted({file.parent for file in folder.glob("*/*") if _suffix(file) and file.name not in NOT_DATA})
    if below:
        return f"give the folder that holds them: {' or '.join(str(each) for each in below[:3])}"
    if any(file.suffix.lower() in SUFFIXES for pattern in ("*", "*/*") for file in folder.glob(pattern)):
        return (
            "pictures alone ask nothing: add metadata.jsonl with file_name, question and answer (docs/data.md); of people to keep, "
            "vgid data others --pictures asks a model"
        )
    return "see docs/data.md for the formats"


def split_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Group data files by the split they belong to.

    A split is named after its file; or after the file's folder, where the file has a name that every data set has: `metadata` (image
    folders) or `train-00000-of-00002`. Files that differ in such numbers only are one split. Folders of `save_to_disk` are splits by
    their own names.

    Args:
        paths: data files, and folders of which all data files are taken.

    Returns:
        The files of each split, by its name.

    Raises:
        DataError: a file does not exist, a folder holds no data file, or files of two folders have the same name.
    """
    splits: dict[str, list[Path]] = {}
    several = [path for path in paths if (path / arrow_rows.SPLITS).is_file()]
    for path in several:
        paths = [*(each for each in paths if each != path), *sorted(child for child in path.iterdir() if child.is_dir())]
    for file in (file for path in paths for file in data_files(path)):
        there = splits.setdefault(_split_of(file), [])
        if there and (there[0].parent != file.parent or not _shard(file)):
            raise DataError("two splits have the same name", where=file, got=f"also {there[0]}", fix="rename one of the files")
        there.append(file)
    return splits


def _suffix(file: Path) -> str:
    """The ending by which a file's reader is found; empty for other files."""
    name = file.name.lower()
    return max((suffix for suffix in READERS if name.endswith(suffix)), key=len, default="")


def _stem(file: Path) -> str:
    return file.name if file.is_dir() else file.name[: len(file.name) - len(_suffix(file))]


def _shard(file: Path) -> re.Match[str] | None:
    found = SHARD.fullmatch(_stem(file))
    return found or (TAR_SHARD.fullmatch(_stem(file)) if _suffix(file) in tar_rows.SUFFIXES else None)


def _split_of(file: Path) -> str:
    shard, stem = _shard(file), _stem(file)
    name = shard[1] if shard else stem
    return file.resolve().parent.name if stem == "metadata" or (shard and name == "train") else name


def _id_prefix(file: Path) -> str:
    """What ids of a file's rows start with: its split, and its number where the split has several files."""
    shard = _shard(file)
    return _split_of(file) + (shard[2] if shard else "")


# -- checks ---------------------------------------------------------------------------------------------------------------


def check_examples(path: str | Path) -> DataReport:
    """Read a file or folder and count its rows; problems are listed, not raised.

    Raises:
        DataError: there is no such file, or no data file in the folder.
    """
    problems, notes = Problems(), Notes()
    return report(str(path), stream(data_files(Path(path)), problems, notes), problems, notes)


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

    forgotten, ids = {_asked(example): example for example in forget}, {example.id: example for example in forget}
    problems = []
    for kept in retain:
        if (found := forgotten.get(_asked(kept))) is not None:
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


def leave_out(rows: Sequence[Example], without: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Part rows into those that stay and those that others name: rows that ask the same about the same pictures.

    Args:
        rows: rows.
        without: the rows to leave out; their ids and answers do not count.

    Returns:
        The rows that stay, and those that are left out.

    Raises:
        DataError: none of the rows to leave out is among the rows.
    """
    asked, named = [_asked(row) for row in rows], [_asked(row) for row in without]
    there, gone = set(asked), set(named)
    missing = [row for row, key in zip(without, named, strict=True) if key not in there]
    if without and len(missing) == len(without):
        raise DataError(
            "none of the rows to leave out is in the data",
            expected="rows with the same question about the same pictures",
            got=f"{len(without)} others",
            fix="give the rows of the data themselves; white space and letter case do not count",
        )
    if missing:
        places = ", ".join(row.where or row.id for row in missing[:SHOWN])
        log.warning("%d of %d rows to leave out are not in the data, the first at %s", len(missing), len(without), places)
    parts: dict[bool, list[Example]] = {False: [], True: []}
    for row, key in zip(rows, asked, strict=True):
        parts[key in gone].append(row)
    return parts[False], parts[True]


def _asked(example: Example) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a row asks, about which pictures; letter case and white space do not count."""
    texts = (*(turn.text for turn in example.context), example.question)
    return tuple(ref.fingerprint for ref in example.images), tuple(" ".join(text.split()).casefold() for text in texts)
