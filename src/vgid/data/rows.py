"""From a raw row to examples: the only place where that happens, whatever the format and wherever the row comes from.

Whatever a row says and a run would not honour is an error; what is harmless is counted and becomes a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from vgid.data.example import IMAGE, STRANGER, Derived, Example, ImageRef, Turn, without_marks
from vgid.data.pictures import holds_picture, picture, seems_picture
from vgid.data.problems import Notes
from vgid.data.readers.base import RawRow
from vgid.data.readers.csv_rows import LISTS
from vgid.data.readers.json_rows import parse
from vgid.data.turns import (
    ANSWERS,
    CHATS,
    COLUMNS,
    OTHER_MARKS,
    PICTURES,
    QUESTIONS,
    REFUSED,
    SHOWN_ELSEWHERE,
    WEIGHTS,
    RawTurn,
    Shown,
    clean,
    text_of,
    turns_of,
)
from vgid.errors import DataError
from vgid.texts import key_fact, normalise

LONGEST_PATH = 1024
"""Characters. Longer texts for pictures hold the pictures themselves and are not kept."""
NAMED = 10
"""Fields of a row that a message names, at most."""
_LIST = re.compile(r'\s*\[\s*["{\]]')
"""How a list begins that was written as text."""


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        turns: `last` takes the last answer of a conversation, with what was said before as context; `all` makes a row of each answer.
        need_answers: whether a row without an answer is an error.
        image_root: the folder that image paths are relative to and must stay in; None for the data file's own folder.
    """

    turns: Literal["last", "all"] = "last"
    need_answers: bool = True
    image_root: Path | None = None


def _holds_rows(value: Any) -> bool:
    """Whether a value is a list of objects, as where a file is one object around its rows."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value[:8])


class RowReader:
    """Turns raw rows into examples.

    Args:
        reading: how rows are read.
        notes: what is harmless is counted in it.
    """

    def __init__(self, reading: Reading, notes: Notes) -> None:
        self.reading, self.notes = reading, notes
        self._paths: dict[tuple[Path | None, str], ImageRef] = {}

    def read(self, raw: RawRow) -> list[Example]:
        """Read one row.

        Args:
            raw: the row as it was found.

        Returns:
            The example; several where a conversation gives one for each answer.

        Raises:
            DataError: the row cannot be used as it is meant.
        """
        content, where = raw.content() if callable(raw.content) else raw.content, raw.where
        if isinstance(content, Example):
            return [content]
        if not isinstance(content, Mapping):
            raise DataError("row is not an object", where=where, expected='{"question": ..., "answer": ...}', got=type(content).__name__)
        row = self._columns(content, where)
        turns = turns_of(row, where, self.notes, need_answers=self.reading.need_answers)
        _check_marks(turns, where)
        images = self._place_pictures(turns, self._own_pictures(row, where), raw, where)
        base = Example(
            id=text_of(row, "id", where, self.notes) if "id" in row else raw.id,
            question="",
            answer="",
            subject=text_of(row, "subject", where, self.notes) if "subject" in row else None,
            keywords=self._texts(row, "keywords", where),
            tags=self._texts(row, "tags", where),
            derived=_derived(row, where),
            where=where,
        )
        examples = [_example(base, turns[: place + 1], images) for place in self._answers(turns, where)]
        if len(examples) > 1:
            if base.keywords:
                raise DataError("keywords of several answers", where=where, expected="one answer, or no keywords", got=str(len(examples)))
            examples = [replace(each, id=f"{base.id}/{number}") for number, each in enumerate(examples, 1)]
        for example in examples:
            _check(example)
        return examples

    def _columns(self, content: Mapping[Any, Any], where: str) -> dict[str, Any]:
        """The row's values by their columns' names in lower case, without missing ones; other columns are counted or refused."""
        row: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for key, value in content.items():
            # pandas has NaN for what a row does not have.
            if value is None or (isinstance(value, Real) and math.isnan(value)):
                continue
            name = key.casefold() if isinstance(key, str) else str(key)
            if name not in COLUMNS:
                others[str(key)] = value
                continue
            if name in row:
                raise DataError(
                    f"row has {name} twice", where=where, expected="one of them", got="names that differ in capital letters only"
                )
            if name != key:
                self.notes.changes[f"column {key} is read as {name}"] += 1
            if name in LISTS and isinstance(value, str) and _LIST.match(value):
                value = parse(value, where)
                self.notes.changes[f"{name} is a list written as text, read as a list"] += 1
            row[name] = value
        if not row.keys() & {*QUESTIONS, *ANSWERS, *CHATS}:
            raise _no_question(content, where)
        for name in QUESTIONS:
            if _holds_column(row.get(name)):
                fix = 'write rows; with pandas: to_json("rows.jsonl", orient="records", lines=True)'
                raise DataError(f"{name} holds a whole column", where=where, expected="the text of one row", got="texts of many", fix=fix)
        seen = any(name in row for name in PICTURES)
        for key, value in others.items():
            name = key.casefold()
            if name in REFUSED and not (isinstance(value, str | list | tuple | Mapping) and not value):
                raise DataError(
                    f"row has {key}, which would be lost", where=where, expected="questions, answers and pictures", got=REFUSED[name]
                )
            if (name in WEIGHTS or name == "label") and _is_unwanted(name, value):
                raise DataError(
                    f"row has {key}, which no run honours", where=where, expected="rows that are to be learned", fix="take the row out"
                )
            if holds_picture(value) or (not seen and (seems_picture(value) or (value and name in SHOWN_ELSEWHERE))):
                raise DataError(
                    f"column {key} holds pictures that the model would not see",
                    where=where,
                    expected=f"pictures in one of the columns {', '.join(PICTURES)}",
                    fix="rename the column, or remove it",
                )
            self.notes.unused[key] += 1
        return row

    def _own_pictures(self, row: Mapping[str, Any], where: str) -> list[Any]:
        given = [name for name in PICTURES if name in row]
        # Data sets that were joined have the columns of each, some of them without anything.
        given = [name for name in given if not isinstance(row[name], list | tuple) or row[name]] or given[:1]
        if len(given) > 1:
            raise DataError(f"row has both {' and '.join(given)}", where=where, expected="one of them")
        if not given:
            return []
        value = row[given[0]]
        return list(value) if isinstance(value, list | tuple) else [value]

    def _place_pictures(self, turns: list[RawTurn], own: Sequence[Any], raw: RawRow, where: str) -> list[ImageRef]:
        """Give every picture its place in a turn; the row's own ones come first in the first question unless marks say where.

        Returns:
            All pictures in their order; every turn's parts have one mark for each of its own.
        """
        marks = sum(isinstance(part, Shown) and part.value is None for turn in turns for part in turn.parts)
        if own and not marks:
            if any(isinstance(part, Shown) for turn in turns for part in turn.parts):
                raise DataError(
                    f"{len(own)} images of the row have no place in its turns",
                    where=where,
                    expected=f"an image part without content, or {IMAGE}, for each",
                    got="turns with images of their own",
                )
            first = next(place for place, turn in enumerate(turns) if turn.role == "user")
            turns[first] = turns[first]._replace(parts=[*[Shown()] * len(own), *turns[first].parts])
        elif marks != len(own):
            raise DataError(
                f"row has {len(own)} images, and {marks} places for them",
                where=where,
                expected=f"one {IMAGE} or image part for each image, or none at all",
                fix="add the missing ones, or take out what is too many",
            )
        following = iter(own)
        images = []
        for turn in turns:
            for part in turn.parts:
                if not isinstance(part, Shown):
                    continue
                if turn.role != "user":
                    raise DataError(f"{turn.name} holds an image", where=where, expected="images in the user's turns only")
                images.append(self._picture(next(following) if part.value is None else part.value, raw.folder, where))
        return images

    def _picture(self, value: Any, folder: Path | None, where: str) -> ImageRef:
        root = self.reading.image_root if self.reading.image_root is not None else folder
        if not isinstance(value, str) or len(value) > LONGEST_PATH:
            return picture(value, root, where)
        clean(value, "image", where)
        # Many rows name the same file.
        found = self._paths.get((root, value))
        if found is None:
            found = self._paths[root, value] = picture(value, root, where)
        return found

    def _answers(self, turns: Sequence[RawTurn], where: str) -> list[int]:
        """Places of the turns that end an example: answers that are to be learned, or the last question where it has no answer."""
        if turns[-1].role == "user":
            return [len(turns) - 1]
        answers = [place for place, turn in enumerate(turns) if turn.role == "assistant" and not turn.earlier]
        if self.reading.turns == "last":
            if len(answers) > 1:
                self.notes.changes["the last answer of several is taken, the others are context"] += 1
            answers = answers[-1:]
        learned = [place for place in answers if turns[place].learned]
        if not learned:
            raise DataError(
                "the row's answer has weight 0", where=where, expected="an answer that is to be learned", fix="take the row out"
            )
        return learned

    def _texts(self, row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
        values = row.get(name)
        if values is None:
            return ()
        if not isinstance(values, list | tuple):
            raise DataError(f"{name} has the wrong type", where=where, expected="a list of texts", got=type(values).__name__)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, str | Real) or not str(value).strip():
                got = "an empty text" if isinstance(value, str) else type(value).__name__
                raise DataError(f"{name} has the wrong type", where=where, expected="a list of texts", got=f"a list with {got}")
        if any(not isinstance(value, str) for value in values):
            self.notes.changes[f"{name} holds numbers, read as text"] += 1
        return tuple(clean(str(value), name, where) for value in values)


def _no_question(content: Mapping[Any, Any], where: str) -> DataError:
    """The error of a row without a column of questions, which says what may be meant."""
    names = sorted(map(str, content))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    inside = next((str(key) for key, value in content.items() if str(key).casefold() not in PICTURES and _holds_rows(value)), None)
    fix = f"{inside} seems to hold the rows: write that list alone" if inside else None
    if content and all(isinstance(value, Mapping) for value in content.values()):
        fix = "its values seem to be the rows: write them as a list"
    got = f"fields {', '.join(names[:NAMED]) or 'none'}{more}"
    return DataError("question is missing", where=where, expected="question: text", got=got, fix=fix)


def _holds_column(value: Any) -> bool:
    """Whether a value is the texts of many rows, as where a table is written column by column."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(each, str) for each in value.values())
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _is_unwanted(name: str, value: Any) -> bool:
    """Whether a column says that its row is not to be learned; a label of 0 is a class."""
    return str(value).strip().casefold() in (("false",) if name == "label" else ("false", "0", "0.0"))


def _check_marks(turns: Sequence[RawTurn], where: str) -> None:
    """Raises:
    DataError: a question has the mark of another program where a picture belongs.
    """
    for turn in turns:
        for part in turn.parts:
            if turn.role == "user" and isinstance(part, str) and (found := OTHER_MARKS.search(part)):
                raise DataError(
                    f"{turn.name} holds {found[0]}, which would be read as text",
                    where=where,
                    expected=f"{IMAGE} where a picture belongs",
                    fix=f"write {IMAGE} there; or, where it is meant as text, with a space in it",
                )


def _derived(row: Mapping[str, Any], where: str) -> Derived | None:
    value = row.get("derived")
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"from", "kind"} or not all(isinstance(each, str) for each in value.values()):
        raise DataError("derived has the wrong type", where=where, expected='{"from": id, "kind": text}', got=type(value).__name__)
    return Derived(value["from"], value["kind"])


def _example(base: Example, turns: Sequence[RawTurn], images: Sequence[ImageRef]) -> Example:
    """The example that ends with the last of the turns."""
    answer = _text(turns[-1]) if turns[-1].role == "assistant" else ""
    asked = turns[:-1] if turns[-1].role == "assistant" else turns
    texts = [_text(turn) for turn in asked]
    shown = sum(isinstance(part, Shown) for turn in asked for part in turn.parts)
    first = next(place for place, turn in enumerate(asked) if turn.role == "user")
    parts = asked[first].parts
    leading = next((place for place, part in enumerate(parts) if not isinstance(part, Shown) and part.strip()), len(parts))
    if sum(isinstance(part, Shown) for part in parts[:leading]) == shown and leading < len(parts):
        texts[first] = "".join(part for part in parts[leading:] if isinstance(part, str)).strip()  # no marks: pictures come first
    *context, question = texts
    said = tuple(Turn(turn.role, text) for turn, text in zip(asked, context, strict=False))
    return replace(base, question=question, answer=answer, images=tuple(islice(images, shown)), context=said)


def _text(turn: RawTurn) -> str:
    return "".join(IMAGE if isinstance(part, Shown) else part for part in turn.parts).strip()


def _check(example: Example) -> None:
    """Raises:
    DataError: a text is empty, or keywords do not stand in the answer, so that no answer could ever be right.
    """
    where = example.where
    if not without_marks(example.question).strip():
        raise DataError("question is empty", where=where, expected="text", got="images only" if example.images else "an empty text")
    for turn in example.context:
        if not turn.text:
            raise DataError(f"a turn of the {turn.role} is empty", where=where, expected="text", got="an empty text")
    if example.answer and not normalise(example.answer):
        raise DataError("answer is empty", where=where, expected="text", got="invisible characters only")
    if example.answer and example.keywords and STRANGER not in example.tags and not key_fact(example.answer, example.keywords):
        raise DataError(
            "keywords do not stand in the answer, so no answer like it would be right",
            where=where,
            expected="keywords that are words of the answer",
            got=f"{sum(not key_fact(example.answer, (word,)) for word in example.keywords)} others",
            fix="correct the keywords or the answer, or leave keywords out",
        )
