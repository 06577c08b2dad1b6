"""What a model must be given with packed rows: positions, and a mask of who sees whom.

Shapes: b rows, s positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.packing import Packing


def model_inputs(model: Any, batch: Batch) -> Mapping[str, Any]:
    """What to call the model with; for packed rows also positions and a mask `[b, 1, s, s]`, or one for each kind of layer."""
    packing = batch.packing
    if packing is None:
        return batch.model_inputs
    positions, _ = places_of(model, batch.model_inputs, packing)
    return {**batch.model_inputs, "attention_mask": masks(model, packing.mask), "position_ids": positions}


def masks(model: Any, mask: Callable[[int | None], Tensor]) -> Any:
    """The mask `[b, 1, q, k]` in the form the model takes it; one for each kind of layer where some see a window only."""
    text = model.config.get_text_config()

    def attended(window: int | None) -> Tensor:
        seen = mask(window)
        if attention_of(model) != "eager":
            return seen
        # Eager attention adds its mask to the scores.
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)

    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return {"full_attention": attended(None), "sliding_attention": attended(text.sliding_window)}
    return attended(None)


def attention_of(model: Any) -> str:
    """How the decoder attends: `sdpa`, `eager`, or another implementation of transformers."""
    return str(model.config.get_text_config()._attn_implementation)


def places_of(model: Any, inputs: Mapping[str, Tensor], packing: Packing) -> tuple[Tensor, Tensor]:
    """Position ids, and how far `[b]` words behind the prefix are from their places.

    `[b, s]`, or `[3, b, s]` for models that place pictures in time, height and width (Qwen-VL's M-RoPE).
    """
    index = _rope_index(model)
    if index is None or not packing.pictures.any():
        return packing.places, packing.places.new_zeros(len(packing.places))
    shared = packing.segments == 0
    known = {**inputs, "attention_mask": shared.long()}
    wanted = inspect.signature(index).parameters
    positions: Tensor = index(**{name: value for name, value in known.items() if name in wanted})[0]
    after = positions.masked_fill(~shared, -1).amax(dim=(0, 2)) + 1  # [b]: text goes on behind the largest of the three
    shift = after - shared.sum(dim=1)
    return torch.where(shared, positions, packing.places + shift[:, None]), shift


def _rope_index(model: Any) -> Any:
    return next((module.get_rope_index for module in model.modules() if hasattr(module, "get_rope_index")), None)
