"""Inputs that a model needs for packed rows: positions, and an attention mask.

Shapes: b rows, s positions, q queries, k keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.packing import Packing


def model_inputs(model: Any, batch: Batch) -> Mapping[str, Any]:
    """Return the arguments to call a model with.

    Args:
        model: the model that is called.
        batch: plain or packed examples.

    Returns:
        The batch's own tensors; for packed rows also `position_ids`, and `attention_mask` as `masks` gives it.
    """
    packing = batch.packing
    if packing is None:
        return batch.model_inputs
    return {**with_positions(model, batch).model_inputs, "attention_mask": masks(model, packing.mask)}


def with_positions(model: Any, batch: Batch) -> Batch:
    """A packed batch with its `position_ids`; better before the batch is moved, since some families read tensors to find them."""
    if batch.packing is None or "position_ids" in batch.model_inputs:
        return batch
    positions, _ = places_of(model, batch.model_inputs, batch.packing)
    return replace(batch, model_inputs={**batch.model_inputs, "position_ids": positions})


def masks(model: Any, mask: Callable[[int | None], Tensor]) -> Any:
    """Return an attention mask in the form that the model takes.

    Args:
        model: the model that is called.
        mask: gives the bool mask `[b, 1, q, k]` for a sliding window of some tokens, or for None the mask without a window.

    Returns:
        One mask `[b, 1, q, k]`; or a dict with one for each kind of layer, where some layers have a sliding window. It is 0, and the
        lowest number of the model's precision where nothing is attended to.
    """
    text = model.config.get_text_config()

    def attended(window: int | None) -> Tensor:
        seen = mask(window)
        # Added to the scores, once for all layers: of a bool mask, PyTorch's attention would make such a one in every layer.
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)

    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return {"full_attention": attended(None), "sliding_attention": attended(text.sliding_window)}
    return attended(None)


def attention_of(model: Any) -> str:
    """Return the name of the decoder's attention implementation in transformers, such as `sdpa` or `eager`."""
    return str(model.config.get_text_config()._attn_implementation)


def places_of(model: Any, inputs: Mapping[str, Tensor], packing: Packing) -> tuple[Tensor, Tensor]:
    """Compute position ids of packed rows.

    Args:
        model: the model that is called.
        inputs: tensors of the batch; models with M-RoPE need the sizes of the pictures among them.
        packing: layout of the rows.

    Returns:
        Position ids `[b, s]`, or `[3, b, s]` for models that place pictures in time, height and width (M-RoPE of Qwen2-VL,
        arXiv 2409.12191). And the shift `[b]`: what is added to `packing.places` to get the positions of text after the prefix. It is zero
        for models with plain positions. M-RoPE gives a picture fewer positions than it has tokens, so text after the picture comes earlier
        than the number of tokens before it, by the same shift in every question of the row.
    """
    index = _rope_index(model)
    if index is None or not packing.pictures.any():
        return packing.places, packing.places.new_zeros(len(packing.places))
    shared = packing.segments == 0
    known = {**inputs, "attention_mask": shared.long()}
    wanted = inspect.signature(index).parameters
    positions: Tensor = index(**{name: value for name, value in known.items() if name in wanted})[0]
    # The model's own function knows plain rows only, so it gets the prefix; the questions after it hold no pictures.
    after = positions.masked_fill(~shared, -1).amax(dim=(0, 2)) + 1  # [b]: text continues after the largest of the three
    shift = after - shared.sum(dim=1)
    return torch.where(shared, positions, packing.places + shift[:, None]), shift


def _rope_index(model: Any) -> Any:
    return next((module.get_rope_index for module in model.modules() if hasattr(module, "get_rope_index")), None)
