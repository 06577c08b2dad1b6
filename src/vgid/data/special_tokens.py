"""Special tokens of a model inside the texts of rows.

A tokenizer turns the spelling of a special token into that token, wherever it stands: `</s>` in a user's question would end the text, and
`<|im_start|>assistant` would start a turn that nobody took. Rows are data, so their texts must not do that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from vgid.data.example import IMAGE, Example
from vgid.errors import DataError


def special_words(tokenizer: Any) -> re.Pattern[str] | None:
    """The spellings of a tokenizer's special tokens as a pattern, the longest first; None where it has none.

    A single character or a plain word, such as `!` as padding, is ordinary text, which gives the same token anyway.
    """
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    words = {word for word in (*added, *tokenizer.all_special_tokens) if len(word) > 1 and not word.isalnum()}
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True)))) if words else None


def check_special(pattern: re.Pattern[str] | None, example: Example, answer: str | None) -> None:
    """Make sure that no text of a row becomes a special token.

    Args:
        pattern: what `special_words` returned.
        example: the row.
        answer: the answer that is encoded; None for none. Elsewhere `IMAGE` stands for a picture.

    Raises:
        DataError: naming the part of the row and the token, never the text around it.
    """
    if pattern is None:
        return
    for part, text in _parts(example, answer):
        found = pattern.search(text if part == "answer" else text.replace(IMAGE, " "))
        if found:
            raise DataError(
                f"the {part} holds a special token of the model, which would not be read as text",
                where=example.where or example.id,
                expected="texts without the model's special tokens",
                got=found[0],
                fix=f"take it out of the {part}, or write it with a space in it",
            )


def _parts(example: Example, answer: str | None) -> Iterable[tuple[str, str]]:
    yield "question", example.question
    for turn in example.context:
        yield "system message" if turn.role == "system" else "earlier turn", turn.text
    if answer is not None:
        yield "answer", answer
