"""Neurons of feed-forward blocks: watching them at work, and choosing some.

Shapes: s positions, m neurons of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.errors import RunError
from vgid.models.structure import MLP

Hook = Callable[[int, Tensor], Tensor | None]
"""Called with a block's place and its neurons `[..., m]`; may return other values for them."""


@contextmanager
def watched(blocks: Sequence[MLP], see: Hook) -> Iterator[None]:
    """Let `see` look at, or change, the neurons of blocks while the model runs; nothing is left behind, not even after an error."""

    def hook(place: int) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        def call(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            changed = see(place, inputs[0])
            return None if changed is None else (changed, *inputs[1:])

        return call

    handles = [block.down.register_forward_pre_hook(hook(place)) for place, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def at_answers(block: MLP, batch: Batch, neurons: Tensor) -> Tensor:
    """Select a block's neurons at the tokens that count.

    Args:
        block: a feed-forward block.
        batch: the batch that went through the model.
        neurons: activations of the block, `[b, s, m]` in the language model, `[..., m]` in the vision tower.

    Returns:
        Activations where answers are predicted, `[n, m]`; in the vision tower at all patches, `[patches, m]`.
    """
    return neurons[batch.answers.rows, batch.answers.positions] if block.part == "language" else neurons.reshape(-1, neurons.shape[-1])


@torch.no_grad()
def silence(block: MLP, chosen: Tensor) -> None:
    """Take neurons out: zero their columns of the map that leads back. What makes them stays, so that they can learn anew."""
    block.down.weight[:, chosen] = 0.0


def sample(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw rows by a seed.

    Args:
        rows: rows to draw from.
        count: rows to draw, at most.
        seed: random seed.

    Returns:
        All rows where there are no more than `count`, else `count` of them.
    """
    return list(rows) if len(rows) <= count else Random(seed).sample(list(rows), count)


def check_finite(scores: Tensor) -> Tensor:
    """The scores themselves.

    Raises:
        RunError: a score is NaN or infinite, so that none can be called the highest.
    """
    if not scores.isfinite().all():
        raise RunError(
            "the importance of a neuron is not finite",
            expected="finite activations and gradients",
            got=f"{int((~scores.isfinite()).sum())} of {len(scores)} that are not",
            fix="check the model's weights, or take float32",
        )
    return scores
