"""From an example to chat messages, and with the processor's own chat template to text."""

from __future__ import annotations

from typing import Any, NamedTuple

from vgid.data.example import Example
from vgid.errors import ModelError


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
    return str(processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, tokenize=False))


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
