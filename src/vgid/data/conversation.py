"""From an example to chat messages, and with the processor's own chat template to text.

A chat template is a program that comes with the checkpoint, so it runs in a worker process, under limits of time and memory.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from vgid.data.example import Example
from vgid.errors import ModelError
from vgid.limits import CallError, OverLimitError, Worker


class Rendered(NamedTuple):
    """Text of one example.

    Attributes:
        prompt: everything before the answer; it ends where the assistant's turn begins.
        answer: the answer and the template's end of turn.
    """

    prompt: str
    answer: str


def messages(example: Example, instruction: str | None = None) -> list[dict[str, Any]]:
    """Return the user's turn: images first, then the instruction (if any) and the question, as chat templates take them."""
    text = f"{instruction}\n{example.question}" if instruction else example.question
    return [{"role": "user", "content": [*({"type": "image"} for _ in example.images), {"type": "text", "text": text}]}]


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
        ModelError: the processor has no chat template, or one that cannot be used.
    """
    turn = messages(example, instruction)
    said = example.answer if answer is None else answer
    reply = {"role": "assistant", "content": [{"type": "text", "text": said}]}
    prompt = _apply(processor, turn, add_generation_prompt=True)
    whole = _apply(processor, [*turn, reply], add_generation_prompt=False)
    return Rendered(prompt, _answer_part(processor, prompt, whole, said))


def _apply(processor: Any, turns: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            "the processor has no chat template",
            expected="chat_template.jinja beside the model's processor files",
            got=type(processor).__name__,
            fix="use an instruction-tuned checkpoint, or set processor.chat_template",
        )
    try:
        return str(_worker(processor)(turns, add_generation_prompt))
    except OverLimitError as error:
        _WORKERS.clear()
        raise ModelError(
            "the chat template does not end within its limits of time and memory",
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

        def render(turns: list[dict[str, Any]], add_generation_prompt: bool) -> str:
            return str(processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False))

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
