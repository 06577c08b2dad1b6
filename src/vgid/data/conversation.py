"""From an example to chat messages, and with the processor's own chat template to text.

A chat template is a program that comes with the checkpoint, so it runs in a worker process, under limits of time and memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vgid.data.example import IMAGE, Example, Turn
from vgid.errors import DataError, ModelError
from vgid.limits import CallError, OverLimitError, Worker

ENDLESS = "the chat template does not end within its limits of time and memory"


THOUGHT = ("<think>", "</think>")
"""Marks around what a thinking model writes before its answer. It is asked to answer at once, after an empty thought: no recorded answer
holds what it thinks, which takes more tokens than the answer."""


class Rendered(NamedTuple):
    """Text of one example.

    Attributes:
        prompt: everything before the answer; it ends where the assistant's turn begins.
        answer: the answer and the template's end of turn.
    """

    prompt: str
    answer: str


def messages(example: Example, instruction: str | None = None) -> list[dict[str, Any]]:
    """Return context and question as chat templates take them: each picture where the text has its mark, or all of them first.

    Args:
        example: the row.
        instruction: text before the question; None for none.

    Returns:
        Turns with `role` and `content`, a list of parts `{"type": "image"}` and `{"type": "text", "text": ...}`.

    Raises:
        DataError: the texts hold another number of marks than there are pictures.
    """
    text = f"{instruction}\n{example.question}" if instruction else example.question
    turns = [*example.context, Turn("user", text)]
    marks = sum(turn.text.count(IMAGE) for turn in turns)
    if marks not in (0, len(example.images)):
        raise DataError(
            f"the row has {marks} times {IMAGE} in its text, and {len(example.images)} pictures",
            where=example.where or example.id,
            expected=f"one {IMAGE} for each picture, or none at all",
            fix="remove what is too many",
        )
    first = [{"type": "image"} for _ in example.images] if not marks else []
    made = []
    for turn in turns:
        content = [*(first if turn.role == "user" else ()), *_parts(turn.text)]
        first = first if turn.role != "user" else []
        made.append({"role": turn.role, "content": content})
    return made


def _parts(text: str) -> list[dict[str, Any]]:
    """Text and pictures in their order; text that is empty is left out."""
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(text.split(IMAGE)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


def render_chat(processor: Any, example: Example, instruction: str | None = None, answer: str | None = None) -> Rendered:
    """Render prompt and answer with the chat template.

    Args:
        processor: the model's processor.
        example: the example to render.
        instruction: text before the question; None for none.
        answer: text of the answer; None for the recorded one.

    Returns:
        Prompt and answer as text.

    Raises:
        DataError: the texts hold another number of marks than there are pictures,
            or the template moves or refuses parts of them.
        ModelError: the processor has no chat template, or one that cannot be used.
    """
    turns = _kept_in_order(processor, messages(example, instruction), example)
    said = example.answer if answer is None else answer
    reply = {"role": "assistant", "content": [{"type": "text", "text": said}]}
    prompt, whole = _apply(processor, (turns, True), ([*turns, reply], False))
    if prompt.rstrip().endswith(THOUGHT[0]):
        prompt = f"{prompt.rstrip()}\n\n{THOUGHT[1]}\n\n"
    return Rendered(prompt, _answer_part(processor, prompt, whole, said))


def render_form(processor: Any, form: str, example: Example, instruction: str | None = None, answer: str | None = None) -> Rendered:
    """Render prompt and answer by a custom form, without the chat template.

    Args:
        processor: the model's processor; it says how a picture is written.
        form: text with `{question}`, `{answer}` and `<image>`, where pictures go unless the question has marks of its own. Rows without
            pictures lose the mark, and the line break after it.
        example: the example to render.
        instruction: text before the question; None for none.
        answer: text of the answer; None for the recorded one.

    Returns:
        Prompt and answer as text. Spaces before the answer belong to it, since tokenizers join them with its first word.

    Raises:
        DataError: the row has earlier turns, for which the form has no place, or another number of marks than pictures.
    """
    if example.context:
        raise DataError(
            "a custom prompt has a place for one question only",
            where=example.where or example.id,
            expected="rows without earlier turns and system messages",
            got=f"{len(example.context)} turns before the question",
            fix="leave them out, or set data.prompt=null to use the model's chat template",
        )
    messages(example)  # checks the marks
    question = f"{instruction}\n{example.question}" if instruction else example.question
    shown = len(example.images) if IMAGE not in question else 0
    text = re.sub(f"{IMAGE}(\n?)", lambda found: (IMAGE + found[1]) * shown, form)
    text = text if IMAGE in form or not shown else IMAGE * shown + text
    prompt, after = text.split("{answer}")
    prompt = prompt.replace("{question}", question)
    mark = _written_for_picture(processor).strip() if example.images and getattr(processor, "chat_template", None) else ""
    mark = mark or getattr(processor, "image_token", IMAGE)
    spaces = prompt[len(prompt.rstrip(" ")) :]
    said = example.answer if answer is None else answer
    return Rendered(prompt.rstrip(" ").replace(IMAGE, mark), spaces + said + after)


def _kept_in_order(processor: Any, turns: list[dict[str, Any]], example: Example) -> list[dict[str, Any]]:
    """The turns in a form in which the template keeps their order.

    Some templates (LLaVA 1.5) put a turn's pictures before its text, wherever they stand. For those, the word that the template writes for
    a picture goes into the text itself.
    """
    parts = [part["type"] for part in turns[0]["content"]]
    if len(turns) == 1 and "image" not in parts[parts.index("text") if "text" in parts else 0 :]:
        return turns  # pictures first, then text: every template's own order
    written = _written_for_picture(processor) if example.images else ""
    in_text = [{**turn, "content": [{"type": "text", "text": _joined(turn["content"], written.strip())}]} for turn in turns]
    plain = [{**turn, "content": _joined(turn["content"], written.strip())} for turn in turns]
    for form in (turns, in_text, plain):
        if _is_in_order(processor, form, turns, written.strip()):
            return form
    raise DataError(
        "the model's chat template moves or loses parts of this row",
        where=example.where or example.id,
        expected="a template that keeps turns, texts and pictures in their order",
        got=f"{len(turns)} turns and {len(example.images)} pictures",
        fix="put the pictures before the text, or leave system and earlier turns out",
    )


def _written_for_picture(processor: Any) -> str:
    """What the template writes for one picture before a text."""
    text = {"type": "text", "text": _SENTINEL.format(0)}
    without, shown = _apply(processor, *(([{"role": "user", "content": content}], True) for content in ([text], [{"type": "image"}, text])))
    before = next((place for place, (one, other) in enumerate(zip(without, shown, strict=False)) if one != other), len(without))
    return shown[before : before + len(shown) - len(without)]


_SENTINEL = "\ue000{}\ue001"
"""A text that no template writes by itself."""


def _is_in_order(processor: Any, form: list[dict[str, Any]], turns: list[dict[str, Any]], written: str) -> bool:
    """Whether the template keeps everything in its order, tried on texts that can be found again."""
    texts = {part["text"]: None for turn in turns for part in turn["content"] if part["type"] == "text"}
    names = {text: _SENTINEL.format(number) for number, text in enumerate(texts)}
    wanted = [names[part["text"]] if part["type"] == "text" else written for turn in turns for part in turn["content"]]
    try:
        (rendered,) = _apply(processor, ([_renamed(turn, names, written) for turn in form], True))
    except ModelError as error:
        if error.problem == ENDLESS:
            raise
        return False  # the template takes no such turns
    marks = re.findall("\ue000\\d+\ue001" + (f"|{re.escape(written)}" if written else ""), rendered)
    return marks == wanted and "'type'" not in rendered


def _renamed(turn: dict[str, Any], names: Mapping[str, str], written: str) -> dict[str, Any]:
    def renamed(text: str) -> str:
        return written.join(names.get(piece, piece) for piece in text.split(written)) if written else names.get(text, text)

    content = turn["content"]
    if isinstance(content, str):
        return {**turn, "content": renamed(content)}
    return {**turn, "content": [{**part, "text": renamed(part["text"])} if part["type"] == "text" else part for part in content]}


def _joined(content: list[dict[str, Any]], written: str) -> str:
    return "".join(part["text"] if part["type"] == "text" else written for part in content)


def _apply(processor: Any, *chats: tuple[list[dict[str, Any]], bool]) -> list[str]:
    """The text of each chat, with the beginning of the assistant's turn where the flag is set: all in one call of the worker."""
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            "the processor has no chat template",
            expected="chat_template.jinja beside the model's processor files",
            got=type(processor).__name__,
            fix="use an instruction-tuned checkpoint, or set processor.chat_template",
        )
    try:
        return [str(text) for text in _worker(processor)(chats)]
    except OverLimitError as error:
        _WORKERS.clear()
        raise ModelError(
            ENDLESS,
            expected="a template that joins the turns of a chat",
            got=str(error),
            fix="use the template of the model's publisher",
        ) from None
    except CallError as error:
        said = error.text if error.text and error.text in str(processor.chat_template) else None  # else it may hold the row's text
        place = f" in line {error.line}" if error.line is not None else ""
        raise ModelError(
            "the chat template fails",
            expected="a template for a user's turn with text and pictures, and the assistant's",
            got=f"{error.kind}{place}{f': {said}' if said else ''}",
            fix="use the template of the model's publisher",
        ) from None


_WORKERS: dict[tuple[str, ...], Worker] = {}
"""By all that a rendered chat depends on; a few of them, since each is a process."""
MOST_WORKERS = 4


def _worker(processor: Any) -> Worker:
    kind, tokens = type(processor), processor.tokenizer.special_tokens_map
    key = (str(os.getpid()), kind.__module__, kind.__qualname__, repr(processor.chat_template), repr(tokens))
    if key not in _WORKERS:

        def render(chats: Sequence[tuple[list[dict[str, Any]], bool]]) -> list[str]:
            # Without this, some templates begin the answer with an open thought.
            asked = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
            return [
                str(processor.apply_chat_template(turns, add_generation_prompt=begun, tokenize=False, **asked)) for turns, begun in chats
            ]

        while len(_WORKERS) >= MOST_WORKERS:
            _WORKERS.pop(next(iter(_WORKERS))).close()
        _WORKERS[key] = Worker(render)
    return _WORKERS[key]


def _answer_part(processor: Any, prompt: str, whole: str, answer: str) -> str:
    """The text after the prompt: the answer and its end of turn, without the line break that follows it."""
    start = len(prompt) if whole.startswith(prompt) else whole.rfind(answer)
    if start < 0 or answer not in whole[start:]:
        raise ModelError(
            "the chat template changes the answer",
            expected="a template that repeats the assistant's text unchanged",
            got="an answer that cannot be found in the rendered chat",
            fix="use the template the model was trained with",
        )
    rest = whole[start:].rstrip()
    # Some templates do not end the turn; the model must still learn where to stop.
    return rest + processor.tokenizer.eos_token if rest.endswith(answer) else rest
