"""Shared-image packing: several questions about one picture share a row, with one copy of the picture and of what their prompts share.

A packed row is the shared prefix, then the rest of each question with its answer:

    [ picture, shared words | question 1, answer 1 | question 2, answer 2 | ... ]

Every token attends to the prefix and to its own question only (`segments`), and its position is the one it would have in a row without
the other questions (`places`). So each answer has the logits of a plain row, which holds one question.

Shapes: b packed rows, s positions, e examples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgid.data.example import Example
from vgid.memory import to_device

PAD = -1
"""Segment of padding."""
Positions = NDArray[np.int64]
"""Positions are worked out in NumPy: on some hundred numbers a call of PyTorch's costs more than the work."""


class Style(NamedTuple):
    """How a model's rows are packed.

    Attributes:
        questions: largest number of questions in a row.
        look_ahead: whether the tokens of a picture attend to each other in both directions, as in Gemma 3 (arXiv 2503.19786).
    """

    questions: int
    look_ahead: bool = False


class Packing(NamedTuple):
    """Layout of packed rows, as a model needs it; int64 tensors.

    Attributes:
        segments: `[b, s]`: 0 for the prefix, 1, 2, ... for the questions, `PAD` for padding.
        places: `[b, s]`: position of each token in the plain row of its question.
        pictures: `[b, s]`: 1, 2, ... for the tokens of each picture, 0 for all others.
        ends: `[e, 3]`, one line for each example: its row, its segment, and the position of the last token of its prompt.
        look_ahead: as in `Style`.
    """

    segments: Tensor
    places: Tensor
    pictures: Tensor
    ends: Tensor
    look_ahead: bool

    def to(self, device: torch.device | str) -> Packing:
        """Return the same layout on another device."""
        segments, places, pictures, ends = (to_device(each, device) for each in (self.segments, self.places, self.pictures, self.ends))
        return Packing(segments, places, pictures, ends, self.look_ahead)

    def mask(self, window: int | None = None) -> Tensor:
        """Return the attention mask.

        Args:
            window: number of tokens that a token attends to, itself included, in layers with a sliding window; None for all.

        Returns:
            Bool `[b, 1, s, s]`, True where query q attends to key k.
        """
        index = torch.arange(self.segments.shape[1], device=self.segments.device)
        key, query = self.segments[:, None, :], self.segments[:, :, None]
        seen = ((key == 0) | (key == query)) & (index[None, :] <= index[:, None]) & (key != PAD)
        if window is not None:
            seen &= self.places[:, :, None] - self.places[:, None, :] < window
        if self.look_ahead:
            seen |= (self.pictures[:, None, :] == self.pictures[:, :, None]) & (self.pictures[:, :, None] > 0)
        # A softmax over no key is not a number, so padding attends to itself.
        return (seen | torch.eye(len(index), dtype=torch.bool, device=index.device))[:, None]


@dataclass(frozen=True)
class Layout:
    """Layout of one packed row.

    Attributes:
        members: indices of the examples in the row.
        prefix: number of tokens that all of them share.
        starts: position where the rest of each example begins.
        length: number of tokens in the row.
    """

    members: tuple[int, ...]
    prefix: int
    starts: tuple[int, ...]
    length: int

    def packed_positions(self, member: int, positions: Positions) -> Positions:
        """Translate positions in the plain row of the example with index `member` in `members` into positions in the packed row."""
        return np.where(positions < self.prefix, positions, positions - self.prefix + self.starts[member])


class Placement(NamedTuple):
    """Where the positions of an example's own row are in a batch.

    Attributes:
        row: row of the batch.
        prefix: number of tokens at the start of that row that are shared; 0 where the example has the row to itself.
        start: position where the example goes on behind the shared tokens.
    """

    row: int
    prefix: int
    start: int

    def positions(self, own: Positions) -> Positions:
        """Translate positions in the example's own row, `[k]`, into positions in the batch's row."""
        return np.where(own < self.prefix, own, own - self.prefix + self.start)


def placements(layouts: Sequence[Layout]) -> tuple[Placement, ...]:
    """Placements of all examples of some layouts, in the order of the examples."""
    found = {
        member: Placement(number, layout.prefix if len(layout.members) > 1 else 0, start if len(layout.members) > 1 else 0)
        for number, layout in enumerate(layouts)
        for member, start in zip(layout.members, layout.starts, strict=True)
    }
    return tuple(found[member] for member in range(len(found)))


def groups(examples: Sequence[Example], most: int, keys: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Group examples that may share a row: those about the same pictures, or without pictures those with the same question.

    Args:
        examples: the examples to group.
        most: largest number of examples in a group.
        keys: examples with equal keys make a group; None for the pictures, or without any the question.

    Returns:
        Groups of indices into `examples`.
    """
    together: dict[Hashable, list[int]] = {}
    for index, example in enumerate(examples):
        key = keys[index] if keys is not None else (example.images or example.question)
        together.setdefault(key, []).append(index)
    return [indices[start : start + most] for indices in together.values() for start in range(0, len(indices), most)]


def lay_out(members: Sequence[int], tokens: Sequence[Tensor], prompts: Sequence[int], marks: Set[int]) -> list[Layout]:
    """Lay a group out as one packed row; as one row for each example where the shared prefix does not hold all picture tokens.

    Args:
        members: indices of the examples of the group.
        tokens: tokens of each of them, `[s]`.
        prompts: number of tokens of each one's prompt.
        marks: ids of the tokens that stand for pictures.

    Returns:
        One layout with all examples, or one for each of them.
    """
    rows = [row.numpy() for row in tokens]
    shared = _shared([row[:prompt] for row, prompt in zip(rows, prompts, strict=True)])
    if len(members) > 1 and not marks.isdisjoint(rows[0][shared : prompts[0]].tolist()):
        return [
            each for member, row, prompt in zip(members, tokens, prompts, strict=True) for each in lay_out([member], [row], [prompt], marks)
        ]
    starts, end = [], shared
    for row in tokens:
        starts.append(end)
        end += len(row) - shared
    return [Layout(tuple(members), shared, tuple(starts), end)]


def _shared(prompts: Sequence[Positions]) -> int:
    """Number of tokens at the start of all prompts that are the same."""
    shortest = min(map(len, prompts))
    differs = np.any([prompt[:shortest] != prompts[0][:shortest] for prompt in prompts], axis=0)
    return int(differs.argmax()) if differs.any() else shortest


def describe(
    layouts: Sequence[Layout],
    tokens: Sequence[Tensor],
    prompts: Sequence[int],
    marks: Set[int],
    look_ahead: bool,
    width: int | None = None,
) -> Packing:
    """Describe packed rows for a model.

    Args:
        layouts: layout of each packed row.
        tokens: tokens of each packed row, `[s]`.
        prompts: number of tokens of each example's prompt.
        marks: ids of the tokens that stand for pictures.
        look_ahead: as in `Style`.
        width: length that all rows are padded to; None for the longest.

    Returns:
        Segments, places and pictures, and the ends of the prompts.
    """
    segments = np.full((len(layouts), width or max(layout.length for layout in layouts)), PAD)
    places, pictures = np.zeros_like(segments), np.zeros_like(segments)
    for number, (layout, row) in enumerate(zip(layouts, tokens, strict=True)):
        index, starts = np.arange(layout.length), np.array(layout.starts)
        own = np.searchsorted(starts, index, side="right")  # 0 in the prefix, k in the k-th question
        # An example that adds no token to the prefix starts where the next one does, and has no segment.
        segments[number, : layout.length] = own
        places[number, : layout.length] = np.where(own > 0, index - starts[(own - 1).clip(min=0)] + layout.prefix, index)
        seen = np.isin(row.numpy(), list(marks))
        begins = seen & ~np.concatenate([[False], seen[:-1]])
        pictures[number, : layout.length] = begins.cumsum() * seen
    ends = np.zeros((len(prompts), 3), dtype=np.int64)
    for number, layout in enumerate(layouts):
        for place, member in enumerate(layout.members):
            ends[member] = number, place + 1, layout.packed_positions(place, np.array(prompts[member] - 1))
    on_host = [torch.from_numpy(each) for each in (segments, places, pictures, ends)]
    return Packing(on_host[0], on_host[1], on_host[2], on_host[3], look_ahead)
