"""What the rows come to in tokens: pictures, longest rows against the context, and where the label mask lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from statistics import median
from typing import Any, NamedTuple

from vgid.data.batching import UNBOUNDED, Encoder
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.models.structure import base_of

MOST_ROWS = 4096
"""Rows of a set that are measured, at most: the longest half of this number, and a seeded sample of the others."""
MOST_SHAPES = 64
"""Different sizes of pictures that are processed, at most; rows with other sizes count as the largest of these."""
MARGIN = 8
"""Rows within this many tokens of the longest, or of the limit, are encoded in full."""


class Spread(NamedTuple):
    """Least, median and most."""

    least: int
    median: float
    most: int


@dataclass(frozen=True)
class Side:
    """One way of asking one set: `student` or `teacher`, of `forget` or `retain`."""

    rows: int
    looked_at: int
    longest: int
    longest_row: Example
    image_tokens: Spread | None
    """Per picture, over rows with pictures."""
    problems: tuple[DataError, ...]


def context_of(model: Any, encoder: Encoder) -> dict[str, int | None]:
    """The limits on a row's tokens: the model's positions, and what the tokenizer allows; None where there is no limit."""
    positions = getattr(base_of(model).config.get_text_config(), "max_position_embeddings", None)
    return {"model": positions, "tokenizer": encoder.max_length}


def choose(examples: Sequence[Example], seed: int, most: int = MOST_ROWS) -> list[Example]:
    """Choose rows to measure: all, or the longest by characters and a seeded sample of the rest.

    Args:
        examples: rows of a set.
        seed: random seed of the sample.
        most: rows to choose, at most.

    Returns:
        The rows chosen.
    """
    if len(examples) <= most:
        return list(examples)
    order = sorted(examples, key=lambda example: example.length, reverse=True)
    return order[: most // 2] + Random(seed).sample(order[most // 2 :], most - most // 2)


def measure(encoder: Encoder, examples: Sequence[Example], instruction: str | None, *, seed: int) -> Side:
    """Count the tokens of rows as they are asked.

    Text is tokenized for every row. Pictures are processed once for each size, since tokens follow from size; rows near the longest
    or near the limit are encoded in full, so that those figures are exact.

    Args:
        encoder: encoder of the model, with its length limit.
        examples: rows of a set.
        instruction: text before the question; None for the plain question.
        seed: random seed of the sample.

    Returns:
        Numbers of tokens, the longest row, and rows that are too long.
    """
    chosen = choose(examples, seed)
    counts, per_image = _count(encoder.limited(UNBOUNDED), chosen, instruction, Random(seed))
    limit = encoder.max_length or 10**9
    near = min(max(counts), limit) - MARGIN
    longest: list[tuple[int, Example]] = []
    problems: list[DataError] = []
    order = sorted(zip(counts, chosen, strict=True), key=lambda pair: pair[0], reverse=True)
    for count, example in (pair for pair in order if pair[0] >= near):
        if count < limit - MARGIN and len(longest) >= MARGIN:
            break
        try:
            longest.append((len(encoder.row(example, instruction).text["input_ids"]), example))
        except DataError as problem:
            problems.append(problem)
            longest.append((count, example))
    most, row = max(longest, key=lambda pair: pair[0])
    spread = Spread(min(per_image), median(per_image), max(per_image)) if per_image else None
    return Side(len(examples), len(chosen), most, row, spread, tuple(problems))


def _count(encoder: Encoder, examples: Sequence[Example], instruction: str | None, rng: Random) -> tuple[list[int], list[int]]:
    """Tokens of every row, and image tokens per picture of every row that has some."""
    rendered = [encoder.render(example, instruction) for example in examples]
    prompts, answers = (
        [len(ids) for ids in encoder.tokenizer([getattr(each, part) for each in rendered], add_special_tokens=False)["input_ids"]]
        for part in ("prompt", "answer")
    )
    kinds = [tuple(ref.size() for ref in example.images) for example in examples]
    first = {kind: number for number, kind in enumerate(kinds)}
    looked = sorted(first) if len(first) <= MOST_SHAPES else rng.sample(sorted(first), MOST_SHAPES)
    extra, images = {}, {}
    for kind in looked:
        row = encoder.row(examples[first[kind]], instruction, None)
        extra[kind] = row.prompt_length - prompts[first[kind]]
        images[kind] = encoder.image_tokens(row) // len(kind) if kind else 0
    worst = max(extra.values())
    counts = [p + a + extra.get(kind, worst) for p, a, kind in zip(prompts, answers, kinds, strict=True)]
    return counts, [images[kind] for kind in kinds if kind and kind in images]


# -- the label mask -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One row as the model sees it: how many tokens of which kind, and, where it may be shown, their text."""

    image_tokens: int
    prompt_tokens: int
    answer_tokens: int
    prompt: str | None
    answer: str | None

    def __str__(self) -> str:
        parts = [f"[{self.image_tokens} image tokens]"] if self.image_tokens else []
        return " ".join([*parts, f"[{self.prompt_tokens} prompt tokens] → [{self.answer_tokens} answer tokens]"])


def sample_of(encoder: Encoder, example: Example, instruction: str | None, *, show: bool) -> Sample:
    """Take a row apart by its label mask.

    Args:
        encoder: encoder of the model.
        example: the row.
        instruction: text before the question; None for the plain question.
        show: keep the text; otherwise only numbers of tokens.

    Returns:
        Numbers of tokens of each kind, and the text where it may be shown.
    """
    row, batch = encoder.row(example, instruction, None), encoder.batch([example], instruction)
    images, targets = encoder.image_tokens(row), batch.answers.targets.tolist()
    prompt = row.text["input_ids"].tolist()
    return Sample(
        image_tokens=images,
        prompt_tokens=len(prompt) - images,
        answer_tokens=len(targets),
        prompt="".join(_spoken(encoder, prompt)) if show else None,
        answer=encoder.tokenizer.decode(targets) if show else None,
    )


def _spoken(encoder: Encoder, tokens: Sequence[int]) -> Iterator[str]:
    """Text, with a note in place of the tokens of each picture."""
    marks = encoder.image_marks
    for seen, group in groupby(tokens, marks.__contains__):
        ids = list(group)
        yield f"[{len(ids)} image tokens]" if seen else str(encoder.tokenizer.decode(ids))
