"""Shared-image packing: questions about one picture stand in one row, behind one copy of the picture and of what their prompts share.

A packed row is the shared prefix, then each question's rest and its answer:

    [ picture, shared words | question 1, answer 1 | question 2, answer 2 | ... ]

Every token may look at the prefix and at its own question only (`segments`), and counts its position as if it stood alone
(`places`), so that each answer has the logits it would have in a row of its own.

Shapes: b packed rows, s positions, n answer tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vgid.data.example import Example

PAD = -1
"""Segment of padding."""


class Style(NamedTuple):
    """How a model's rows are packed.

    Attributes:
        questions: at most so many share a row.
        look_ahead: the tokens of a picture see each other in both directions, as in Gemma 3.
    """

    questions: int
    look_ahead: bool = False


class Packing(NamedTuple):
    """What a model must know of packed rows; int64 tensors.

    Attributes:
        segments: `[b, s]`: 0 for the prefix, 1, 2, ... for the questions, `PAD` for padding.
        places: `[b, s]`: where each token would stand in a row of its own.
        pictures: `[b, s]`: 1, 2, ... for the tokens of each picture, 0 for all others.
        ends: `[e, 3]`, one line per example: its row, its segment, and where its prompt ends.
        look_ahead: see `Style`.
    """

    segments: Tensor
    places: Tensor
    pictures: Tensor
    ends: Tensor
    look_ahead: bool

    def to(self, device: torch.device | str) -> Packing:
        """The same on another device."""
        segments, places, pictures, ends = (each.to(device) for each in (self.segments, self.places, self.pictures, self.ends))
        return Packing(segments, places, pictures, ends, self.look_ahead)

    def mask(self, window: int | None = None) -> Tensor:
        """Who sees whom: bool `[b, 1, s, s]`, True where query q may look at key k; `window` tokens back at most, itself included."""
        index = torch.arange(self.segments.shape[1], device=self.segments.device)
        key, query = self.segments[:, None, :], self.segments[:, :, None]
        seen = ((key == 0) | (key == query)) & (index[None, :] <= index[:, None]) & (key != PAD)
        if window is not None:
            seen &= self.places[:, :, None] - self.places[:, None, :] < window
        if self.look_ahead:
            seen |= (self.pictures[:, None, :] == self.pictures[:, :, None]) & (self.pictures[:, :, None] > 0)
        # A row of the softmax without any key has no value, so padding looks at itself.
        return (seen | torch.eye(len(index), dtype=torch.bool, device=index.device))[:, None]


@dataclass(frozen=True)
class Layout:
    """One packed row: which examples are in it, where their prefix ends and where each of them goes on."""

    members: tuple[int, ...]
    prefix: int
    starts: tuple[int, ...]
    length: int

    def packed_positions(self, member: int, positions: Tensor) -> Tensor:
        """Where an example's own positions are in the packed row."""
        return torch.where(positions < self.prefix, positions, positions - self.prefix + self.starts[member])


def groups(examples: Sequence[Example], most: int) -> list[list[int]]:
    """Places of the examples that may share a row: those about the same pictures, or without any the same question."""
    together: dict[object, list[int]] = {}
    for place, example in enumerate(examples):
        together.setdefault(example.images or example.question, []).append(place)
    return [places[start : start + most] for places in together.values() for start in range(0, len(places), most)]


def lay_out(members: Sequence[int], tokens: Sequence[Tensor], prompts: Sequence[int], marks: Collection[int]) -> list[Layout]:
    """Lay a group out as one packed row; in rows of their own where what they share does not hold their pictures.

    Args:
        members: places of the examples.
        tokens: of each, `[s]`.
        prompts: length of each one's prompt.
        marks: tokens that stand for a picture.
    """
    shared = _shared([row[:prompt] for row, prompt in zip(tokens, prompts, strict=True)])
    images = torch.tensor(sorted(marks))
    if len(members) > 1 and torch.isin(tokens[0][shared : prompts[0]], images).any():
        return [
            each for member, row, prompt in zip(members, tokens, prompts, strict=True) for each in lay_out([member], [row], [prompt], marks)
        ]
    starts, end = [], shared
    for row in tokens:
        starts.append(end)
        end += len(row) - shared
    return [Layout(tuple(members), shared, tuple(starts), end)]


def _shared(prompts: Sequence[Tensor]) -> int:
    """How many tokens all prompts begin with."""
    shortest = min(map(len, prompts))
    same = torch.stack([prompt[:shortest] == prompts[0][:shortest] for prompt in prompts]).all(dim=0)
    return int(same.long().cumprod(0).sum())


def describe(
    layouts: Sequence[Layout], tokens: Sequence[Tensor], prompts: Sequence[int], marks: Collection[int], look_ahead: bool
) -> Packing:
    """Describe packed rows; `tokens` are those of the packed rows, `[s]` each, `prompts` the lengths of the examples' prompts."""
    images = torch.tensor(sorted(marks))
    segments, places, pictures = [], [], []
    for layout, row in zip(layouts, tokens, strict=True):
        index = torch.arange(layout.length)
        starts = torch.tensor(layout.starts)
        own = torch.searchsorted(starts, index, right=True)  # 0 in the prefix, k in the k-th question
        # An example that adds nothing to the prefix starts where the next one does, and owns no token.
        segments.append(own)
        places.append(torch.where(own > 0, index - starts[(own - 1).clamp(min=0)] + layout.prefix, index))
        seen = torch.isin(row, images)
        begins = seen & ~torch.cat([torch.zeros(1, dtype=torch.bool), seen[:-1]])
        pictures.append(begins.cumsum(0) * seen)
    return Packing(
        pad_sequence(segments, batch_first=True, padding_value=PAD),
        pad_sequence(places, batch_first=True),
        pad_sequence(pictures, batch_first=True),
        _ends(layouts, prompts),
        look_ahead,
    )


def _ends(layouts: Sequence[Layout], prompts: Sequence[int]) -> Tensor:
    ends = torch.zeros(len(prompts), 3, dtype=torch.long)
    for number, layout in enumerate(layouts):
        for place, member in enumerate(layout.members):
            last = layout.packed_positions(place, torch.tensor(prompts[member] - 1))
            ends[member] = torch.tensor([number, place + 1, int(last)])
    return ends
