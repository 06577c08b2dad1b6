"""Rows exactly as a model is asked: the chat template around them, pictures in their place, and which tokens are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vgid.checks.rows import sample_of
from vgid.data.batching import Encoder
from vgid.data.example import IMAGE, Example
from vgid.errors import DataError


@dataclass(frozen=True)
class SeenRow:
    """A row as a model sees it.

    Attributes:
        place: where the row is.
        image_tokens: tokens that stand for pictures.
        prompt_tokens: all other tokens before the answer.
        answer_tokens: tokens of the answer, which a loss is computed on.
        prompt: the prompt, with `[N image tokens]` for each picture; the row's own texts are replaced unless they may be shown.
        answer: the answer with its end of turn, in the same way.
        problem: why the model cannot be asked this row; the other fields are then empty.
    """

    place: str
    image_tokens: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    prompt: str = ""
    answer: str = ""
    problem: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return self.problem
        counts = f"{self.image_tokens} image tokens, {self.prompt_tokens} prompt tokens, {self.answer_tokens} answer tokens"
        return f"{self.place} as the model is asked: {counts}\n{self.prompt}\n  the answer, trained on:\n{self.answer}"


def as_seen(encoder: Encoder, rows: Iterable[Example], *, show: bool = False) -> list[SeenRow]:
    """Encode rows, and write down what the model is asked.

    Args:
        encoder: encoder of the model.
        rows: rows with answers.
        show: keep the rows' own texts; otherwise each is replaced by its kind and its length before it is encoded.

    Returns:
        What the model is asked, row by row; a row that cannot be encoded has a `problem`. Numbers of tokens are those of the row itself.
    """
    seen = []
    for row in rows:
        try:
            counts = sample_of(encoder, row, None, show=show)
            text = counts if show else sample_of(encoder, _redacted(row), None, show=True)
        except DataError as error:
            seen.append(SeenRow(row.where or row.id, problem=str(error)))
            continue
        numbers = (counts.image_tokens, counts.prompt_tokens, counts.answer_tokens)
        seen.append(SeenRow(row.where or row.id, *numbers, text.prompt or "", text.answer or ""))
    return seen


def _redacted(row: Example) -> Example:
    """The row with the same pictures in the same places, and with the kind and length of each text in place of the text."""

    def hidden(kind: str, text: str) -> str:
        return IMAGE.join(f"({kind}: {len(piece)} characters)" if piece.strip() else piece for piece in text.split(IMAGE))

    context = tuple(turn._replace(text=hidden(turn.role, turn.text)) for turn in row.context)
    return replace(row, question=hidden("question", row.question), answer=f"(answer: {len(row.answer)} characters)", context=context)
