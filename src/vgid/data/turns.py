"""From the columns of a row, in any of the known formats, to a list of turns.

| format | columns |
|---|---|
| ours | `question`, `answer`, `context` |
| TRL | `messages`; or `prompt` and `completion`, texts or lists of turns |
| LLaVA, ShareGPT | `conversations`, turns with `from` and `value` |
| LLaMA-Factory | either, or Alpaca's; with `system` and `history` |
| ms-swift | `messages`; or `query` and `response`, with `system` and `history` |
| Alpaca | `instruction`, `input`, `output` |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple

from vgid.data.example import IMAGE
from vgid.data.pictures import seems_picture
from vgid.data.problems import Notes
from vgid.errors import DataError

QUESTIONS = ("question", "prompt", "query", "instruction")
ANSWERS = ("answer", "completion", "response", "output")
CHATS = ("messages", "conversations")
AROUND = ("system", "history", "input", "context")
"""Columns with what was said before a question, or with more of it."""
PICTURES = tuple("image images file_name image_path image_paths image_url image_urls image_file img".split())
"""Columns of pictures; a row has one of them."""
LABELS = ("id", "subject", "keywords", "tags", "derived")
COLUMNS = frozenset((*QUESTIONS, *ANSWERS, *CHATS, *AROUND, *PICTURES, *LABELS))
"""All columns that are read."""
SHOWN_ELSEWHERE = ("photo", "photos", "picture", "pictures", "pic")
"""Names of columns that are not read and surely hold pictures, whatever these look like."""
REFUSED = {
    "video": "films",
    "videos": "films",
    "audio": "sounds",
    "audios": "sounds",
    "tools": "tools",
    "functions": "tools",
    "objects": "boxes",
    "rejected": "a rejected answer",
    "chosen": "a chosen answer",
    "rejected_response": "a rejected answer",
    "rejected_messages": "a rejected answer",
    "answers": "several answers",
    "options": "answers to choose from",
    "choices": "answers to choose from",
}
"""Columns whose content a run would not honour, with what they hold."""
WEIGHTS = ("weight", "loss", "train")
"""Whether something is to be learned: fields of a turn, which are read, and columns, which are not."""
Role = Literal["system", "user", "assistant"]
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"), "assistant"),
}
NOT_HONOURED = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "audio", "refusal", "tool_call_id")
"""Fields of a turn that change what the model is asked or answers."""
NO_SYSTEM = "an empty system prompt is left out"
_MARKS = re.compile(f"({IMAGE}|<img>[^<>]+</img>)")
"""What stands for a picture in a text: the next one of the row, or the one that Qwen-VL's tags name."""
OTHER_MARKS = re.compile(
    r"<\|?(?:image|img|video|audio)(?:[ _-]?(?:\d+|here|pad|placeholder|token))?\|?>|<start_of_image>|<\|vision_(?:start|end)\|>|\[IMG\]",
    re.IGNORECASE,
)
"""What other programs and models write in a text where a picture, a film or a sound belongs; here it would be read as text."""


class Shown(NamedTuple):
    """A picture in a turn: what is given for it, or None for the next one of the row's own."""

    value: Any = None


class RawTurn(NamedTuple):
    """One turn as it was found.

    Attributes:
        role: who speaks.
        name: what it is called in messages.
        parts: texts and pictures in their order.
        learned: whether the row wants this answer to be learned.
        earlier: whether it comes from a column of earlier turns, whose answers are never learned.
    """

    role: Role
    name: str
    parts: list[str | Shown]
    learned: bool = True
    earlier: bool = False


def turns_of(row: Mapping[str, Any], where: str, notes: Notes, *, need_answers: bool = True) -> list[RawTurn]:
    """Find the turns of a row.

    Args:
        row: the row, with its columns' names in lower case and without missing values.
        where: its place.
        notes: what was changed is counted in it.
        need_answers: whether a row without an answer is an error.

    Returns:
        The turns: a system turn or none, then the user's and the assistant's in turn; the last is an answer unless none is needed.

    Raises:
        DataError: columns of two formats, missing or empty texts, unknown roles, or turns in another order.
    """
    questions, answers, chats = ([name for name in names if name in row] for names in (QUESTIONS, ANSWERS, CHATS))
    if len(questions) > 1 or len(answers) > 1 or len(chats) + bool(questions or answers) > 1:
        raise DataError(
            f"row has both {' and '.join((*questions, *answers, *chats))}",
            where=where,
            expected="question and answer, prompt and completion, or messages",
        )
    before = _before(row, where, notes)
    if chats:
        turns = [*before, *_chat(row[chats[0]], chats[0], where, notes)]
    else:
        asked = questions[0] if questions else "question"
        turns = [*before, *_pair(row, asked, answers[0] if answers else _answer_of(asked), where, notes, need_answers)]
    _check_order(turns, where, need_answers)
    return turns


def text_of(row: Mapping[str, Any], name: str, where: str, notes: Notes | None = None) -> str:
    """Read a text.

    Args:
        row: the row.
        name: name of the column or field.
        where: place of the row.
        notes: where numbers are read as text, what counts them; None where they are errors.

    Returns:
        The text, without white space at its ends.

    Raises:
        DataError: it is missing, empty, of another type, or holds characters that no tokenizer takes.
    """
    value = row.get(name)
    if value is None:
        fix = "add it; where rows are unlearned, rows without answers are taken too, and get the model's own" if name in ANSWERS else None
        got = f"fields {', '.join(sorted(row)) or 'none'}"
        raise DataError(f"{name} is missing", where=where, expected=f"{name}: text", got=got, fix=fix)
    if notes is not None and not isinstance(value, bool) and isinstance(value, Real):  # numpy's numbers too
        if not math.isfinite(value):
            raise DataError(f"{name} is not a number", where=where, expected="text", got="NaN or infinity")
        notes.changes[f"{name} is a number, read as text"] += 1
        value = str(value)
    if not isinstance(value, str):
        raise DataError(f"{name} has the wrong type", where=where, expected="text", got=type(value).__name__)
    if not value.strip():
        raise DataError(f"{name} is empty", where=where, expected="text", got="only white space" if value else "an empty text")
    return clean(value, name, where).strip()


def clean(text: str, name: str, where: str) -> str:
    """Return the text where every tokenizer can take it.

    Raises:
        DataError: it holds a zero character, or half of a surrogate pair.
    """
    if "\0" in text:
        raise DataError(f"{name} holds a zero character", where=where, expected="text", fix="take it out")
    if any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else False:
        raise DataError(f"{name} holds half of a surrogate pair", where=where, expected="Unicode text", fix="save the data as UTF-8 again")
    return text


def _answer_of(question: str) -> str:
    return ANSWERS[QUESTIONS.index(question)]


def _before(row: Mapping[str, Any], where: str, notes: Notes) -> list[RawTurn]:
    """The system's turn and earlier turns from columns of their own."""
    turns: list[RawTurn] = []
    if isinstance(system := row.get("system"), str) and not system.strip():
        notes.changes[NO_SYSTEM] += 1
    elif "system" in row:
        turns.append(RawTurn("system", "system", [text_of(row, "system", where)]))
    history = row.get("history", [])
    if not isinstance(history, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise DataError("history has the wrong type", where=where, expected="a list of [question, answer]", got=type(history).__name__)
    for number, (asked, said) in enumerate(history, 1):
        turns += [_turn("user", asked, f"question {number} of history", where, notes)]
        turns += [_turn("assistant", said, f"answer {number} of history", where, notes)]
    if "context" in row:
        turns += _chat(row["context"], "context", where, notes)
    return [turn._replace(earlier=True) for turn in turns]


def _pair(row: Mapping[str, Any], asked: str, said: str, where: str, notes: Notes, need_answers: bool) -> list[RawTurn]:
    """Question and answer, as texts or as lists of turns."""
    kinds = [type(row[name]).__name__ for name in (asked, said) if name in row]
    lists = [isinstance(row.get(name), list | tuple) for name in (asked, said) if name in row]
    if any(lists) and not all(lists) and len(lists) > 1:
        raise DataError(
            f"{asked} and {said} are of different kinds", where=where, expected="two texts, or two lists of turns", got=" and ".join(kinds)
        )
    if any(lists):
        if asked not in row:
            raise DataError(f"{asked} is missing", where=where, expected=f"{asked}: a list of turns")
        return [turn for name in (asked, said) if name in row for turn in _chat(row[name], name, where, notes)]
    question = text_of(row, asked, where)
    if "input" in row:
        if asked != "instruction":
            raise DataError(f"row has both {asked} and input", where=where, expected="input with an instruction only")
        more = row["input"]
        if not isinstance(more, str):
            raise DataError("input has the wrong type", where=where, expected="text", got=type(more).__name__)
        question = f"{question}\n{clean(more, 'input', where).strip()}" if more.strip() else question
    turns = [RawTurn("user", asked, split_marks(question))]
    if said in row or need_answers:
        turns.append(RawTurn("assistant", said, split_marks(text_of(row, said, where, notes))))
    return turns


def _chat(messages: Any, name: str, where: str, notes: Notes) -> list[RawTurn]:
    if not isinstance(messages, list | tuple) or not all(isinstance(turn, Mapping) for turn in messages):
        got = type(messages).__name__
        raise DataError(f"{name} of this shape are not supported", where=where, expected="a list of turns with role and content", got=got)
    turns = []
    for number, given in enumerate(messages, 1):
        turn = {key: value for key, value in given.items() if value is not None}
        if "system" in (turn.get("role"), turn.get("from")) and not any(str(turn.get(key, "")).strip() for key in ("content", "value")):
            notes.changes[NO_SYSTEM] += 1
        else:
            turns.append(_of_chat(turn, name, number, where, notes))
    return turns


def _of_chat(turn: Mapping[str, Any], column: str, number: int, where: str, notes: Notes) -> RawTurn:
    place = f"turn {number} of {column}"
    speaker = [key for key in ("role", "from") if key in turn]
    spoken = [key for key in ("content", "value") if key in turn]
    if len(speaker) == 1 and not spoken:
        raise DataError(f"{place} has no text", where=where, expected="content or value: text", got=f"fields {', '.join(turn)}")
    if len(speaker) != 1 or len(spoken) != 1:
        raise DataError(
            f"{place} cannot be read", where=where, expected="role and content, or from and value", got=", ".join(turn) or "none"
        )
    role = ROLES.get(turn[speaker[0]].casefold()) if isinstance(turn[speaker[0]], str) else None
    if role is None:
        raise DataError(f"{place} is of another speaker", where=where, expected=", ".join(sorted(ROLES)), got="another role")
    ignored = [key for key in NOT_HONOURED if turn.get(key)]
    if ignored:
        raise DataError(f"{place} has {ignored[0]}, which would be lost", where=where, expected="role and content", fix="take the row out")
    for key in turn.keys() - {"role", "from", "content", "value", *WEIGHTS, *NOT_HONOURED}:
        if turn[key] and (key.casefold() in (*PICTURES, *SHOWN_ELSEWHERE, *REFUSED) or seems_picture(turn[key])):
            fix = "give pictures as parts of the turn's content, or in a column of the row"
            raise DataError(f"{place} has {key}, which would be lost", where=where, expected="role and content", fix=fix)
        notes.unused[f"{column}.{key}"] += 1
    return _turn(role, turn[spoken[0]], place, where, notes, _is_learned(turn, place, where))


def _is_learned(turn: Mapping[str, Any], place: str, where: str) -> bool:
    given = [turn[key] for key in WEIGHTS if key in turn]
    if any(each not in (0, 1) for each in given):
        raise DataError(f"{place} has a weight that no run honours", where=where, expected="0 or 1", got="another value")
    return all(given)


def _turn(role: Role, content: Any, name: str, where: str, notes: Notes, learned: bool = True) -> RawTurn:
    if isinstance(content, str) or (role == "assistant" and isinstance(content, int | float)):
        text = text_of({name: content}, name, where, notes if role == "assistant" else None)
        return RawTurn(role, name, split_marks(text), learned)
    if not isinstance(content, list | tuple):
        raise DataError(
            f"{name} cannot be read", where=where, expected="text, or a list of text and image parts", got=type(content).__name__
        )
    parts: list[str | Shown] = []
    for part in content:
        parts += _part(part, name, where, notes)
    if not any(isinstance(part, Shown) or part.strip() for part in parts):
        raise DataError(f"{name} is empty", where=where, expected="text", got="no text")
    return RawTurn(role, name, parts, learned)


def _part(part: Any, name: str, where: str, notes: Notes) -> list[str | Shown]:
    """One part of a turn's content: texts and pictures in their order."""
    if isinstance(part, str):
        return split_marks(clean(part, name, where))
    if not isinstance(part, Mapping):
        raise DataError(
            f"{name} has a part that is neither text nor image", where=where, expected="text and images", got=type(part).__name__
        )
    given = {key: value for key, value in part.items() if value is not None and not (isinstance(value, str) and not value)}
    kind = given.pop("type", None) or ("text" if "text" in given else "image" if {"image", "image_url"} & given.keys() else None)
    if kind in ("text", "input_text"):
        text = given.pop("text", "")
        if not isinstance(text, str):
            raise DataError(f"{name} has a text part without text", where=where, expected="text", got=type(text).__name__)
        found = split_marks(clean(text, name, where))
    elif kind in ("image", "image_url", "input_image", "image_pil"):
        found = [_shown(given, name, where)]
    else:
        raise DataError(f"{name} has a part that is neither text nor image", where=where, expected="text and images", got="another type")
    lost = [key for key in ("text", "image", "images", "video", "audio", "image_url") if key in given]
    if lost:
        raise DataError(f"{name} has a part of two kinds", where=where, expected="text or an image", got=f"{kind} with {lost[0]}")
    for key in given:
        notes.unused[f"part.{key}"] += 1
    return found


def _shown(given: dict[str, Any], name: str, where: str) -> Shown:
    """The picture of an image part; its keys are taken out of `given`."""
    values = [given.pop(key) for key in ("image", "image_url", "url", "path", "base64", "bytes", "source", "data") if key in given]
    given.pop("detail", None)
    if len(values) > 1:
        raise DataError(f"{name} has an image part with several images", where=where, expected="one image", got=str(len(values)))
    value = values[0] if values else None
    if isinstance(value, Mapping) and set(value) <= {"url", "detail"}:
        value = value.get("url")
    return Shown(value)


def split_marks(text: str) -> list[str | Shown]:
    """Take a text apart at the words that stand for pictures."""
    if "<im" not in text:
        return [text]
    made: list[str | Shown] = []
    for piece in _MARKS.split(text):
        if piece == IMAGE:
            made.append(Shown())
        elif piece.startswith("<img>") and piece.endswith("</img>"):
            made.append(Shown(piece[5:-6].strip()))
        elif piece:
            made.append(piece)
    return made


def _check_order(turns: list[RawTurn], where: str, need_answers: bool) -> None:
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    alternate = all(role == ("user", "assistant")[place % 2] for place, role in enumerate(spoken))
    if not spoken or not alternate or (need_answers and len(spoken) % 2):
        ending = "the last of them the assistant's" if need_answers else "at least one"
        expected = f"a system turn or none, then turns of user and assistant in turn, {ending}"
        shown = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        raise DataError("turns of this order are not supported", where=where, expected=expected, got=f"turns of {shown or 'nobody'}")
