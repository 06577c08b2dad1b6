"""Aligned positions of two batches of the same examples with different prompts: from behind the last token that differs to the end.

Shapes: t positions of all examples together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from vgid.data.batching import Batch


class AlignedPositions(NamedTuple):
    """Int64 tensors `[t]`: the place of the example that a position belongs to, and its row and position in either batch."""

    owners: Tensor
    rows: Tensor
    positions: Tensor
    other_rows: Tensor
    other_positions: Tensor


def aligned_positions(batch: Batch, other: Batch, pictures: Collection[int]) -> AlignedPositions:
    """Find, for each example, the positions that predict its answer, and those before them with the same tokens in both batches.

    Read from the back, the aligned positions end at a picture, and in packed rows where the example's own part of the row begins.

    Args:
        batch: of some examples.
        other: of the same examples, with the same answers and other prompts.
        pictures: tokens that stand for pictures.

    Returns:
        Aligned positions of all examples, in the order of the examples.
    """
    columns: list[tuple[int, int, int, int, int]] = []
    for place in range(len(batch.ids)):
        (row, here), (other_row, there) = _answer(batch, place), _answer(other, place)
        if not here:
            continue
        same = _same(_before(batch, row, here[0]), _before(other, other_row, there[0]), pictures)
        columns += [(place, row, here[0] - back, other_row, there[0] - back) for back in range(1, same + 1)]
        columns += [(place, row, one, other_row, two) for one, two in zip(here, there, strict=True)]
    found = torch.tensor(columns, dtype=torch.long).reshape(-1, 5).to(batch.owners.device)
    return AlignedPositions(*found.T)


def _answer(batch: Batch, place: int) -> tuple[int, list[int]]:
    """The row of an example, and the positions in it that predict its answer."""
    own = batch.owners == place
    return int(batch.answers.rows[own][0]) if own.any() else -1, batch.answers.positions[own].tolist()


def _before(batch: Batch, row: int, position: int) -> list[int]:
    """The tokens up to a position, itself included, last first: in a packed row those of its own part."""
    tokens = batch.model_inputs["input_ids"][row, : position + 1]
    if batch.packing is not None:
        segments = batch.packing.segments[row, : position + 1]
        tokens = tokens[segments == segments[-1]]
    return list(reversed(tokens.tolist()))


def _same(one: list[int], other: list[int], pictures: Collection[int]) -> int:
    """How many tokens before the last one are the same; none where the last ones differ."""
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b or a in pictures:
            break
        same += 1
    return max(0, same - 1)
