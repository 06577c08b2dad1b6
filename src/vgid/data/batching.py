"""From examples to tensors: the one place where prompts are joined with answers, images with text, and rows are padded.

Shapes: b rows, s positions, n answer tokens of the whole batch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vgid.data.conversation import Rendered, render_chat, render_form
from vgid.data.example import Example, ImageRef
from vgid.data.packing import Layout, Packing, Placement, Positions, Style, describe, groups, lay_out, placements
from vgid.data.picture_size import PictureSize, sized
from vgid.data.processed_once import NotProcessedError, processing_once
from vgid.data.special_tokens import check_special, special_words
from vgid.errors import DataError, ModelError
from vgid.memory import to_device

Pictures = Sequence[Image.Image]
Values = Mapping[str, Tensor]
UNBOUNDED = 1_000_000
"""Tokens. Tokenizers without a limit have a huge `model_max_length` (transformers: 1e30); from this number on it is not a limit."""
CACHE_BYTES = 512 * 2**20
"""Processed pictures and encoded rows are kept in memory up to this size; chosen by hand."""
REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError, StopIteration)
"""What processors raise on a row that they cannot take, or where a number in their configuration is wrong. Older releases stop an iteration
for a word without its picture."""
CONTEXT_CHARACTERS = 8
"""Characters at the end of the prompt with which an answer is tokenized: some tokenizers put a space before the first word of a text, so
an answer must not be tokenized alone. Chosen by hand; enough for the end of the prompt in all families of tests/models/families.py."""


class Answers(NamedTuple):
    """Where the answers of a batch are: the logits at `[rows[k], positions[k]]` predict the token `targets[k]`.

    Attributes:
        rows: int64 `[n]`, row of the batch.
        positions: int64 `[n]`, position in the row, one before the token itself.
        targets: int64 `[n]`, the token.
    """

    rows: Tensor
    positions: Tensor
    targets: Tensor


class Embedded(NamedTuple):
    """Pictures that have been embedded already (`vgid.models.pictures`).

    Attributes:
        rows: int64 `[k]`, row of the batch of each token that stands for a part of a picture.
        positions: int64 `[k]`, its position in the row.
        values: `[k, h]`, what the decoder is to see there.
    """

    rows: Tensor
    positions: Tensor
    values: Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs of a model for several examples, and where their answers are.

    Attributes:
        model_inputs: every tensor that the processor returned, by its name: `input_ids` `[b, s]`, pictures in the model's own layout.
        answers: places and tokens of the answers, in the order of the examples; without tokens where answers are to be generated.
        owners: int64 `[n]`, the example that each answer token belongs to, as an index into `ids`.
        ids: ids of the examples.
        packing: how examples share rows; None where each has a row of its own, so that `owners` equals `answers.rows`.
        placements: where each example's own positions are; empty where padding is on the left.
        embedded: pictures that are embedded already; None where the model embeds them from `model_inputs`.
    """

    model_inputs: Mapping[str, Tensor]
    answers: Answers
    owners: Tensor
    ids: tuple[str, ...]
    packing: Packing | None = None
    placements: tuple[Placement, ...] = ()
    embedded: Embedded | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on another device; the host does not wait for it."""
        inputs = {name: to_device(value, device) for name, value in self.model_inputs.items()}
        answers, packing = Answers(*(to_device(x, device) for x in self.answers)), self.packing and self.packing.to(device)
        embedded = self.embedded and Embedded(*(to_device(x, device) for x in self.embedded))
        owners = to_device(self.owners, device)
        return replace(self, model_inputs=inputs, answers=answers, owners=owners, packing=packing, embedded=embedded)

    def pinned(self) -> Batch:
        """Return the same batch with its inputs in pinned memory."""
        return replace(self, model_inputs={name: value.pin_memory() for name, value in self.model_inputs.items()})


@dataclass(frozen=True)
class EncodedRow:
    """One encoded example.

    Attributes:
        id: id of the example.
        text: tensors with one entry for each token, `[s]`: `input_ids`, `attention_mask` and others.
        images: all other tensors, in the processor's own layout; empty for text-only rows.
        prompt_length: number of tokens before the answer.
    """

    id: str
    text: Values
    images: Values
    prompt_length: int


class Encoder:
    """Encodes examples with a model's processor.

    The processor gets prompts only; the answer's tokens are appended to them. So the answer has the same tokens whatever the prompt is,
    as it has when a model generates it, and no label can ever cover the prompt. Where a processor returns further values for every token,
    such as token types, it is asked once which of them an answer gets.

    Args:
        processor: the model's processor.
        max_length: the model's context in tokens; None for the tokenizer's.
        size: limits of a picture's size.
        prompt: form of a row in place of the chat template (`data.prompt`); None for the chat template.
    """

    def __init__(self, processor: Any, max_length: int | None = None, size: PictureSize | None = None, prompt: str | None = None) -> None:
        self.size, self.prompt = size or PictureSize(), prompt
        self.processor = sized(processor, self.size)
        self._prompting, self._once = processing_once(self.processor)
        self.tokenizer = processor.tokenizer
        limit = max_length or self.tokenizer.model_max_length
        self.max_length = limit if limit < UNBOUNDED else None
        self._takes_answers = "suffix" in inspect.signature(type(processor).__call__).parameters
        self._answer_values: Mapping[str, int] | None = None
        self._chats: dict[Hashable, Rendered] = {}
        self._encoded: dict[tuple[str, str | None, tuple[ImageRef, ...]], EncodedRow] = {}
        self._rows: dict[tuple[str, tuple[ImageRef, ...]], Values] = {}
        self._pictures: dict[tuple[ImageRef, ...], Values] = {}
        self._cached_bytes = 0
        self.warned: set[str] = set()
        """Warnings that have been logged already, so that each appears once."""

    def row(self, example: Example, instruction: str | None = None, answer: str | None = "", images: Pictures | None = None) -> EncodedRow:
        """Encode one example.

        Args:
            example: the example to encode.
            instruction: text before the question; None for none.
            answer: text of the answer; "" for the recorded answer, None for no answer at all.
            images: pictures to use instead of the example's own; None for its own.

        Returns:
            The encoded row: prompt, then answer and end of turn.

        Raises:
            DataError: the row is longer than the model's context (nothing is ever truncated), an image cannot be read, the processor
                refuses the row, the answer holds a word that stands for a picture, or a text holds a special token of the model.
            ModelError: the processor has no usable chat template, or the model uses cross-attention to pictures.
        """
        rendered = self.render(example, instruction, answer or None)
        key = (rendered.prompt, rendered.answer if answer is not None else None, example.images)
        if images is None and key in self._encoded:
            return replace(self._encoded[key], id=example.id)
        check_special(self._special_words, example, (answer or example.answer) if answer is not None else None)
        text, pictures = self._process(rendered.prompt, example, images)
        length = text["input_ids"].shape[0]
        if answer is not None:
            tokens = self._answer_tokens(rendered)
            if self.image_marks.intersection(tokens):
                raise DataError("the answer holds a word that stands for a picture", where=_where(example), fix="take it out of the answer")
            values = {"attention_mask": 1, **(self._answer_values or {})}
            text = {
                name: torch.cat([value, value.new_tensor(tokens if name == "input_ids" else [values.get(name, 0)] * len(tokens))])
                for name, value in text.items()
            }
        self._check_length(example, text["input_ids"], length)
        row = EncodedRow(example.id, text, pictures, length)
        if images is None and self._has_room(_nbytes(text)):
            self._encoded[key] = row
        return row

    def render(self, example: Example, instruction: str | None = None, answer: str | None = None) -> Rendered:
        """Text of an example: by the chat template, or by the custom prompt.

        A row is rendered once: the template runs in a process of its own, also to say what a custom prompt writes for a picture, and rows
        come again in every epoch.

        Raises:
            DataError: as `render_chat`, or `render_form`.
            ModelError: as `render_chat`.
        """
        said = example.answer if answer is None else answer
        key = (getattr(self.processor, "chat_template", None), example.question, example.context, len(example.images), instruction, said)
        if key in self._chats:
            return self._chats[key]
        if self.prompt is None:
            rendered = render_chat(self.processor, example, instruction, said)
        else:
            rendered = render_form(self.processor, self.prompt, example, instruction, said)
        if self._has_room(2 * (len(rendered.prompt) + len(rendered.answer))):  # the text, and about as much in the key
            self._chats[key] = rendered
        return rendered

    def collate(
        self, rows: Sequence[EncodedRow], side: Literal["left", "right"] = "right", width: Callable[[int], int] | None = None
    ) -> Batch:
        """Pad rows to one length and join them.

        Args:
            rows: encoded rows; tensors that a row lacks are filled with zeros.
            side: where padding goes: "right" for training and scoring, "left" for generation.
            width: from the tokens of the longest row to the length of all; None pads to the longest.

        Returns:
            A batch with one row for each example.
        """
        longest = max(len(row.text["input_ids"]) for row in rows)
        wide = width(longest) if width else longest
        inputs: dict[str, Tensor] = {}
        for name, like in {name: value for row in rows for name, value in row.text.items()}.items():
            joined = np.full((len(rows), wide), self._pad_token if name == "input_ids" else 0)
            for number, row in enumerate(rows):
                if name in row.text:
                    length = len(row.text[name])
                    joined[number, slice(wide - length, None) if side == "left" else slice(length)] = row.text[name].numpy()
            inputs[name] = _tensor(joined, like)
        inputs |= join_pictures(rows)
        answers = _answers(rows, wide, side)
        places = tuple(Placement(number, 0, 0) for number in range(len(rows))) if side == "right" else ()
        return Batch(inputs, answers, answers.rows, tuple(row.id for row in rows), placements=places)

    def layouts(
        self, rows: Sequence[EncodedRow], examples: Sequence[Example], style: Style, keys: Sequence[Hashable] | None = None
    ) -> list[Layout]:
        """Find which rows share a packed row, and how long each one is.

        Args:
            rows: encoded rows.
            examples: the examples of these rows; the same pictures make a group.
            style: number of questions that share a row, and how the model attends to pictures.
            keys: rows with equal keys may share a row; None for the pictures, or without any the question.

        Returns:
            One layout for each packed row.
        """
        tokens, prompts = [row.text["input_ids"] for row in rows], [row.prompt_length for row in rows]
        return [
            layout
            for members in groups(examples, style.questions, keys)
            for layout in lay_out(members, [tokens[m] for m in members], [prompts[m] for m in members], self._image_tokens)
        ]

    def pack(
        self,
        rows: Sequence[EncodedRow],
        examples: Sequence[Example],
        style: Style,
        keys: Sequence[Hashable] | None = None,
        width: Callable[[int], int] | None = None,
    ) -> Batch:
        """Join rows so that questions about the same pictures share a row (`vgid.data.packing`), and pad on the right.

        Args:
            rows: encoded rows.
            examples: the examples of these rows; the same pictures make a group.
            style: number of questions that share a row, and how the model attends to pictures.
            keys: as in `layouts`.
            width: as in `collate`.

        Returns:
            A batch with `packing`; answers and owners are in the order of the examples.
        """
        layouts = self.layouts(rows, examples, style, keys)
        packed = [_packed(layout, [rows[m] for m in layout.members]) for layout in layouts]
        joined = self.collate(packed, width=width)
        prompts, wide = [row.prompt_length for row in rows], joined.model_inputs["input_ids"].shape[1]
        packing = describe(layouts, [row.text["input_ids"] for row in packed], prompts, self._image_tokens, style.look_ahead, wide)
        answers, owners = _packed_answers(layouts, rows)
        return Batch(joined.model_inputs, answers, owners, tuple(row.id for row in rows), packing, placements(layouts))

    def batch(
        self,
        examples: Sequence[Example],
        instruction: str | None = None,
        answers: Sequence[str] | None = None,
        images: Sequence[Pictures | None] | None = None,
        packing: Style | None = None,
    ) -> Batch:
        """Encode examples with answers, padded on the right.

        Args:
            examples: the examples to encode.
            instruction: text before every question; None for none.
            answers: one answer for each example; None for the recorded ones.
            images: pictures for each example, or None for its own; None for everyone's own.
            packing: how examples share rows; None for one row each.

        Returns:
            A batch whose answers are in the order of the examples.

        Raises:
            DataError: as `row`.
            ModelError: as `row`.
        """
        said = answers if answers is not None else [""] * len(examples)
        seen = images if images is not None else [None] * len(examples)
        rows = [self.row(e, instruction, a, i) for e, a, i in zip(examples, said, seen, strict=True)]
        return self.pack(rows, examples, packing) if packing else self.collate(rows)

    def prompts(
        self, examples: Sequence[Example], instruction: str | None = None, images: Sequence[Pictures | None] | None = None
    ) -> Batch:
        """Encode examples without answers, padded on the left, as generation needs them.

        Args:
            examples: the examples to encode.
            instruction: text before every question; None for none.
            images: pictures for each example, or None for its own; None for everyone's own.

        Returns:
            A batch without answer tokens.

        Raises:
            DataError: as `row`.
            ModelError: as `row`.
        """
        seen = images if images is not None else [None] * len(examples)
        return self.collate([self.row(e, instruction, None, i) for e, i in zip(examples, seen, strict=True)], side="left")

    def limited(self, max_length: int | None) -> Encoder:
        """Return an encoder like this one with another limit of length."""
        return Encoder(self.processor, max_length, self.size, self.prompt)

    def picture(self, ref: ImageRef) -> Image.Image:
        """Open a picture at the size at which the processor gets it.

        Raises:
            DataError: the picture cannot be opened.
        """
        return self.size.scaled(ref.open())

    def check(self, examples: Iterable[Example]) -> None:
        """Encode one row for each number of pictures, so that a processor that cannot take them fails before any work is done.

        The texts of all rows are searched for special tokens of the model.

        Raises:
            DataError: the processor refuses a row, or a text holds a special token; all refused rows are reported together.
            ModelError: the processor has no usable chat template.
        """
        examples = list(examples)
        problems = []
        for example in examples:
            try:
                check_special(self._special_words, example, example.answer)
            except DataError as error:
                problems.append(error)
        if problems:
            raise DataError.together(problems)
        for example in {len(example.images): example for example in examples}.values():
            try:
                self.row(example)
            except DataError as error:
                problems.append(error)
        if problems:
            raise DataError.together(problems)

    def image_tokens(self, row: EncodedRow) -> int:
        """Return the number of a row's tokens that stand for pictures."""
        return sum(token in self.image_marks for token in row.text["input_ids"].tolist())

    @cached_property
    def _special_words(self) -> re.Pattern[str] | None:
        return special_words(self.tokenizer)

    @cached_property
    def image_marks(self) -> frozenset[int]:
        """Ids of the tokens that stand for pictures."""
        return frozenset(self._image_tokens)

    # -- the processor ----------------------------------------------------------------------------------------------------

    def _process(self, prompt: str, example: Example, images: Pictures | None) -> tuple[Values, Values]:
        if images is not None or not example.images:
            return self._call(prompt, images, example)
        key = (prompt, example.images)
        if key not in self._rows:
            text, pictures = self._call_once(prompt, example)
            if example.images not in self._pictures and self._has_room(_nbytes(pictures)):
                self._pictures[example.images] = pictures
            if self._once is not None and example.images not in self._pictures:
                self._once.forget(example.images)
            if example.images not in self._pictures or not self._has_room(_nbytes(text)):
                return text, self._pictures.get(example.images, pictures)
            self._rows[key] = text
        return self._rows[key], self._pictures[example.images]

    def _call_once(self, prompt: str, example: Example) -> tuple[Values, Values]:
        """As `_call`, but pictures whose values are kept are neither opened nor processed again: in place of these values are zeros."""
        key = example.images
        if self._once is None:
            return self._call(prompt, [self.picture(ref) for ref in key], example)
        if key in self._pictures and (blank := self._once.blank(key)):
            try:
                with self._once.of(key, blank):
                    return self._call(prompt, blank, example)
            except NotProcessedError:
                self._once.forget(key)
        pictures = [self.picture(ref) for ref in key]
        with self._once.of(key, pictures):
            return self._call(prompt, pictures, example)

    def _call(self, prompt: str, images: Pictures | None, example: Example) -> tuple[Values, Values]:
        """Tensors with one entry for each token, `[s]`, and all others."""
        inputs: dict[str, Any] = {"text": [prompt], "return_tensors": "pt"}
        if images:
            inputs["images"] = [list(images)]
        if self.tokenizer.bos_token and prompt.startswith(self.tokenizer.bos_token):
            inputs["add_special_tokens"] = False  # the template has written the token that starts a text; a second one confuses models
        try:
            encoded = self._prompting(**inputs)
            if self._takes_answers and self._answer_values is None:
                self._answer_values = _last(self._prompting(**inputs, suffix=["a"]))
        except REFUSALS as error:
            raise DataError(
                "the processor refuses this row",
                where=_where(example),
                expected=f"a row that {type(self.processor).__name__} takes",
                got=f"{len(example.images)} images and a question: {str(error) or type(error).__name__}",
                fix="take words that stand for pictures, such as <image>, out of the text; or leave such rows out",
            ) from error
        shape = encoded["input_ids"].shape
        encoded.pop("labels", None)  # for a loss that the model computes itself; ours are in `Answers`
        wide = [name for name, value in encoded.items() if value.ndim > 2 and value.shape[:2] == shape]
        if wide:  # in a batch, the pictures of one row would then change a row without pictures
            raise ModelError(
                "the model attends to pictures by cross-attention, which is not supported",
                expected="a model that puts pictures between the words, as most do",
                got=f"{type(self.processor).__name__} with {wide[0]}",
                fix="use a model of another family",
            )
        text = {name: value[0] for name, value in encoded.items() if value.shape == shape}
        return text, {name: value for name, value in encoded.items() if name not in text}

    def _answer_tokens(self, rendered: Rendered) -> list[int]:
        """Tokens of the answer after its prompt: alone, some tokenizers would put a space before its first word."""
        context = rendered.prompt[-CONTEXT_CHARACTERS:]
        before, both = (self._tokens(text) for text in (context, context + rendered.answer))
        # Where the first characters of the answer join the last token of the prompt, the answer is tokenized alone.
        return both[len(before) :] if both[: len(before)] == before else self._tokens(rendered.answer)

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes may be kept, which then count; many questions are about one picture, and rows come again in every epoch."""
        fits = self._cached_bytes + size <= CACHE_BYTES
        self._cached_bytes += size * fits
        return fits

    @property
    def _pad_token(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    @property
    def _image_tokens(self) -> set[int]:
        several = getattr(self.processor, "image_token_ids", None) or [getattr(self.processor, "image_token_id", None)]
        return {int(token) for token in several if token is not None}

    def _check_length(self, example: Example, tokens: Tensor, prompt_length: int) -> None:
        if self.max_length is None or len(tokens) <= self.max_length:
            return
        image_tokens = self._image_tokens
        seen = sum(token in image_tokens for token in tokens.tolist())
        raise DataError(
            "the row is longer than the model's context; cutting it would lose image or answer tokens",
            where=_where(example),
            expected=f"at most {self.max_length} tokens",
            got=f"{len(tokens)} tokens: {seen} of images, {prompt_length - seen} of prompt, {len(tokens) - prompt_length} of the answer",
            fix="shorten the text or the instruction, or use smaller or fewer images",
        )


def _nbytes(values: Values) -> int:
    return sum(value.nbytes for value in values.values())


def _where(example: Example) -> str:
    return example.where or example.id


def _last(encoded: Mapping[str, Tensor]) -> Mapping[str, int]:
    """The values of the last token, by their names."""
    shape = encoded["input_ids"].shape
    return {name: int(value[0, -1]) for name, value in encoded.items() if value.shape == shape}


def join_pictures(rows: Sequence[EncodedRow]) -> dict[str, Tensor]:
    """All tensors about the pictures of some rows, joined in the rows' order."""
    names = {name: None for row in rows for name in row.images}
    return {name: _join([row.images[name] for row in rows if name in row.images]) for name in names}


def _join(values: Sequence[Tensor]) -> Tensor:
    """Join along the first dimension; the other dimensions are padded with zeros to the largest, as processors do for pictures."""
    sizes = [max(value.shape[d] for value in values) for d in range(1, values[0].ndim)]
    return torch.cat(
        [F.pad(v, [x for size, have in zip(sizes[::-1], v.shape[:0:-1], strict=True) for x in (0, size - have)]) for v in values]
    )


def _tensor(values: NDArray[Any], like: Tensor) -> Tensor:
    """Values as a tensor of another one's precision."""
    found = torch.from_numpy(values)
    return found if found.dtype == like.dtype else found.to(like.dtype)


def _packed(layout: Layout, rows: Sequence[EncodedRow]) -> EncodedRow:
    """One row of several: the prefix and the pictures of the first, then the rest of each."""
    first = rows[0]
    text = {
        name: torch.from_numpy(np.concatenate([value.numpy()[: layout.prefix], *(row.text[name].numpy()[layout.prefix :] for row in rows)]))
        for name, value in first.text.items()
    }
    return EncodedRow(first.id, text, first.images, layout.length)


def _packed_answers(layouts: Sequence[Layout], rows: Sequence[EncodedRow]) -> tuple[Answers, Tensor]:
    """Places of the answers in packed rows, in the order of the examples, and the example of each token."""
    columns: dict[int, tuple[Positions, ...]] = {}
    for number, layout in enumerate(layouts):
        for place, member in enumerate(layout.members):
            tokens, start = rows[member].text["input_ids"].numpy(), rows[member].prompt_length
            packed = layout.packed_positions(place, np.arange(start - 1, len(tokens) - 1))
            columns[member] = (np.full(len(packed), number), packed, tokens[start:], np.full(len(packed), member))
    ordered = [columns[member] for member in range(len(rows))]
    joined = [torch.from_numpy(np.concatenate(column)) for column in zip(*ordered, strict=True)]
    return Answers(*joined[:3]), joined[3]


def _answers(rows: Sequence[EncodedRow], width: int, side: str) -> Answers:
    columns: list[tuple[Positions, ...]] = []
    for number, row in enumerate(rows):
        targets = row.text["input_ids"].numpy()[row.prompt_length :]
        first = row.prompt_length + (width - len(row.text["input_ids"]) if side == "left" else 0)
        columns.append((np.full(len(targets), number), np.arange(first, first + len(targets)) - 1, targets))
    return Answers(*(torch.from_numpy(np.concatenate(column)) for column in zip(*columns, strict=True)))
