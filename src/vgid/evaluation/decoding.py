"""Greedy decoding of packed rows: a picture and the words its questions share are read once, for all of them.

Shapes: b packed rows, k questions in a row at most, s tokens read so far, v vocabulary, e examples.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
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


class Decoded(NamedTuple):
    """New tokens `[e, t]`, and where asked for the logits that chose them, `[e, v]` for each step."""

    tokens: Tensor
    logits: list[Tensor]


class _Read(NamedTuple):
    """What has been read: `segments` and `places` `[b, s]`, the cache, and how far `[b]` positions are from places."""

    segments: Tensor
    places: Tensor
    cache: DynamicCache
    shift: Tensor

    def keep(self, rows: Tensor) -> _Read:
        """Some rows only."""
        self.cache.batch_select_indices(rows)
        return _Read(self.segments[rows], self.places[rows], self.cache, self.shift[rows])


@contextmanager
def shared_heads(device: torch.device) -> Iterator[None]:
    """Let CPUs attend by groups of query heads that share keys and values, without copies of these for every head.

    transformers does so only where there is no mask, since some GPUs are slower with one; this is its own switch.
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
def decode(model: Any, batch: Batch, *, max_new_tokens: int, ends: Collection[int], pad: int, keep_logits: bool = False) -> Decoded:
    """Answer packed prompts greedily; after an end token an answer is filled up with `pad`.

    In every step each packed row is given one new token of each of its questions, which see the prefix and their own question.
    Rows all of whose questions are answered are dropped.
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
        chosen = scores.argmax(dim=-1).masked_fill(done, pad)  # [b, k]
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
    """Read one more token `[b, k]` of each question; gives the logits `[b, k, v]` of what comes next."""
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
