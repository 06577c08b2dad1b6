"""Decoding of packed rows: a picture, and the words that its questions share, are read once for all of them.

Shapes: b packed rows, k questions in the longest row, s tokens read so far, t new tokens, v vocabulary, e examples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from vgid.data.batching import Batch
from vgid.data.packing import PAD
from vgid.models.forward import head_at
from vgid.models.packing import masks, model_inputs, places_of

SHARED_HEADS = "TRANSFORMERS_SDPA_FORCE_GQA"
"""Environment variable of transformers for grouped-query attention without copies of keys and values."""


Choose = Callable[[int, Tensor], Tensor]
"""Gives the next tokens `[e]` from the number of tokens so far and the logits `[e, v]`."""


class Decoded(NamedTuple):
    """Answers of a packed batch.

    Attributes:
        tokens: int64 `[e, t]`, the new tokens.
        logits: for each step the logits `[e, v]` that chose the token; empty unless they were asked for.
    """

    tokens: Tensor
    logits: list[Tensor]


class _Read(NamedTuple):
    """Tokens read so far: their `segments` and `places` `[b, s]`, their cache, and the `shift` `[b]` from places to positions."""

    segments: Tensor
    places: Tensor
    cache: DynamicCache
    shift: Tensor

    def keep(self, rows: Tensor) -> _Read:
        """Drop all other rows."""
        self.cache.batch_select_indices(rows)
        return _Read(self.segments[rows], self.places[rows], self.cache, self.shift[rows])


@contextmanager
def shared_heads(device: torch.device) -> Iterator[None]:
    """Within the `with` statement, use grouped-query attention on a CPU without copying keys and values for every query head.

    transformers does so only without a mask, since some GPUs are slower with one; this sets its own environment variable.
    """
    before = os.environ.get(SHARED_HEADS)
    if device.type == "cpu":
        os.environ[SHARED_HEADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(SHARED_HEADS, None)
        if before is not None:
            os.environ[SHARED_HEADS] = before


@torch.no_grad()
def decode(
    model: Any,
    batch: Batch,
    *,
    max_new_tokens: int,
    ends: Collection[int],
    pad: int,
    keep_logits: bool = False,
    choose: Choose | None = None,
) -> Decoded:
    """Answer packed prompts.

    In every step, each packed row gets one new token of each of its questions, which attends to the prefix and to its own question. Rows
    whose questions are all answered are dropped.

    Args:
        model: the model, without PEFT's wrapper, in evaluation mode.
        batch: packed prompts without answers, on the model's device.
        max_new_tokens: largest number of tokens in an answer.
        ends: ids of the tokens that end an answer.
        pad: id of the token that fills up answers after their end.
        keep_logits: whether to return the logits of every step.
        choose: chooses the tokens of a step; None takes the likeliest.

    Returns:
        Tokens in the order of the examples, and logits.
    """
    packing = batch.packing
    assert packing is not None
    device = batch.model_inputs["input_ids"].device
    rows, slots, last = packing.ends[:, 0], packing.ends[:, 1] - 1, packing.ends[:, 2]
    grid = (len(packing.segments), int(slots.max()) + 1)  # [b, k]
    stops = torch.tensor(sorted(ends), device=device)

    cache = DynamicCache()
    with head_at(model, rows, last):
        first = model(**model_inputs(model, batch), past_key_values=cache, use_cache=True).logits[0]  # [e, v]
    read = _Read(packing.segments, packing.places, cache, places_of(model, batch.model_inputs, packing)[1])
    place = torch.zeros(grid, dtype=torch.long, device=device)
    place[rows, slots] = packing.places[rows, last]
    live = torch.arange(grid[0], device=device)  # packed rows that are still read
    done = torch.ones(grid, dtype=torch.bool, device=device)
    done[rows, slots] = False

    scores = torch.zeros(*grid, first.shape[-1], dtype=first.dtype, device=device)
    scores[rows, slots] = first
    tokens: list[Tensor] = []
    logits: list[Tensor] = []
    for step in range(max_new_tokens):
        chosen = scores.argmax(dim=-1)  # [b, k]
        if choose is not None:
            chosen[rows, slots] = choose(step, scores[rows, slots])
        chosen = chosen.masked_fill(done, pad)
        tokens.append(chosen[rows, slots])
        if keep_logits:
            logits.append(scores[rows, slots])
        done = done | torch.isin(chosen, stops)
        if done.all() or step == max_new_tokens - 1:
            break
        unfinished = ~done.all(dim=1)
        if int(unfinished[live].sum()) <= len(live) // 2:
            read = read.keep(unfinished[live].nonzero().flatten())
            live = unfinished.nonzero().flatten()
        place += 1
        read, scores[live] = _step(model, read, chosen[live], place[live])
    return Decoded(torch.stack(tokens, dim=1), logits)


def _step(model: Any, read: _Read, tokens: Tensor, place: Tensor) -> tuple[_Read, Tensor]:
    """Read one more token `[b, k]` of each question; returns the logits `[b, k, v]` of the next one."""
    slots = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).expand_as(tokens)
    read = read._replace(segments=torch.cat([read.segments, slots], dim=1), places=torch.cat([read.places, place], dim=1))

    def mask(window: int | None) -> Tensor:
        key, query = read.segments[:, None, :], slots[:, :, None]
        seen = ((key == 0) | (key == query)) & (key != PAD)
        if window is not None:
            seen &= place[:, :, None] - read.places[:, None, :] < window
        return seen[:, None]

    positions = place + read.shift[:, None]
    if read.shift.any():
        positions = positions.expand(3, *positions.shape)
    out = model(
        input_ids=tokens,
        attention_mask=masks(model, mask),
        position_ids=positions,
        past_key_values=read.cache,
        use_cache=True,
    )
    return read, out.logits
