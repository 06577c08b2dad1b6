"""Start-up check of packing: whether a model computes the same logits for packed rows as for plain ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.data.packing import Style, groups
from vgid.models.forward import answer_logits
from vgid.models.packing import attention_of

log = logging.getLogger("vgid")

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference of two logits that rounding explains, as a part of the largest logit, by precision; chosen by hand on the embedded
model."""
MASKED = ("sdpa", "eager")
"""Attention implementations that accept a mask `[b, 1, q, k]`."""


def find_style(model: Any, encoder: Encoder, examples: Sequence[Example], questions: int) -> Style | None:
    """Find out how this model's rows can be packed, by comparing logits of packed with plain rows.

    Args:
        model: the model; it is called on up to three rows.
        encoder: encodes examples for it.
        examples: rows to be packed; without two questions about one picture there is nothing to share.
        questions: largest number of questions in a row.

    Returns:
        The style whose logits agree within `TOLERANCE`; None where rows have to stay plain. A model that cannot be packed is warned about
        once for each reason.
    """
    several = next((places for places in groups(examples, questions) if len(places) > 1 and examples[places[0]].images), None)
    if questions < 2 or several is None:
        return None
    rows = [examples[place] for place in several[:3]]
    if attention_of(model) not in MASKED:
        reason: str | None = f"{attention_of(model)} attention does not accept a mask for packed rows"
    else:
        for style in (Style(questions), Style(questions, look_ahead=True)):
            reason = _difference(model, encoder, rows, style)
            if reason is None:
                return style
    if reason not in encoder.warned:
        encoder.warned.add(str(reason))
        log.warning("questions about one picture get a row each, which is slower: %s", reason)
    return None


@torch.no_grad()
def _difference(model: Any, encoder: Encoder, rows: Sequence[Example], style: Style) -> str | None:
    """Why packed rows cannot be used; None if their logits agree with those of plain ones."""
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
