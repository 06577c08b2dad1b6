"""What a model must be told of packed rows, and whether it can take them at all.

Shapes: b rows, s positions.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.data.packing import Packing, Style, groups

log = logging.getLogger("vgid")

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference of two logits that rounding explains, relative to the largest logit."""
MASKED = ("sdpa", "eager")
"""Ways to attend that take a mask of who sees whom."""


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
        if _attention(model) != "eager":
            return seen
        # Eager attention adds its mask to the scores.
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)

    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return {"full_attention": attended(None), "sliding_attention": attended(text.sliding_window)}
    return attended(None)


def _attention(model: Any) -> str:
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


def find_style(model: Any, encoder: Encoder, examples: Sequence[Example], questions: int) -> Style | None:
    """How this model's rows can be packed, found out by comparing packed with plain rows; None, with one warning, if they cannot.

    Without two questions about one picture there is nothing to share, and nothing is said.
    """
    several = next((places for places in groups(examples, questions) if len(places) > 1 and examples[places[0]].images), None)
    if questions < 2 or several is None:
        return None
    rows = [examples[place] for place in several[:3]]
    reason = _obstacle(model, encoder, rows)
    if reason is None:
        for style in (Style(questions), Style(questions, look_ahead=True)):
            reason = _difference(model, encoder, rows, style)
            if reason is None:
                return style
    if reason not in encoder.told:
        encoder.told.add(str(reason))
        log.warning("questions about one picture get a row each, which is slower: %s", reason)
    return None


def _obstacle(model: Any, encoder: Encoder, rows: Sequence[Example]) -> str | None:
    if _attention(model) not in MASKED:
        return f"{_attention(model)} attention takes no mask of who sees whom"
    return None


@torch.no_grad()
def _difference(model: Any, encoder: Encoder, rows: Sequence[Example], style: Style) -> str | None:
    """What is wrong with packed rows; None if their logits are those of plain ones."""
    from vgid.models.forward import answer_logits

    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        plain, packed = (answer_logits(model, encoder.batch(rows, packing=each).to(device)) for each in (None, style))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return f"the model refuses packed rows ({type(error).__name__})"
    finally:
        model.train(training)
    worst = ((packed - plain).abs().max() / plain.abs().max()).item()
    return None if worst <= TOLERANCE.get(plain.dtype, 1e-4) else f"logits of packed rows differ by {worst:.1e} of the largest"
