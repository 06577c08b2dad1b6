"""Settings that are `auto`: worked out from the device and its memory when a run starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.memory import free_bytes
from vgid.models.structure import base_of
from vgid.settings import Precision, TrainingConfig
from vgid.training.memory_estimate import SHARE, kept_for_backward, logit_bytes, training_bytes

RATE_BY_WIDTH = 0.4
"""Learning rate of LoRA, times the width of the language model."""
CANDIDATES = 8
"""Rows with the most pictures and characters that are encoded to find the longest one."""


def precision_on(device: torch.device, precision: Precision) -> Precision:
    """The precision that a run computes in: `auto` is bf16 on a GPU that has it, fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def learning_rate_for(model: Any, rate: float | Literal["auto"], *, adapter: bool) -> float:
    """The peak of a run's learning rate: `auto` is inverse to the width of the language model.

    Adam's steps have the same size whatever the width, so wide layers, whose outputs sum over more inputs, need smaller ones (muP, arXiv
    2203.03466). The constant gives 1e-4 for the 4,096 of a 7 B model and 2e-3 for the 192 of the embedded one, the rates that were found
    by hand for each.

    Args:
        model: the model, with its text configuration.
        rate: the setting.
        adapter: whether LoRA is trained; all parameters take a tenth.

    Returns:
        The rate.
    """
    if rate != "auto":
        return rate
    per_width = RATE_BY_WIDTH if adapter else RATE_BY_WIDTH / 10
    return float(f"{per_width / base_of(model).config.get_text_config().hidden_size:.1e}")


def checkpointing_on(model: Any, encoder: Encoder, rows: Sequence[Example], training: TrainingConfig, at_once: int) -> bool:
    """Whether a run checkpoints gradients: as set, or with `auto` when a step would not fit into the device's free memory.

    Args:
        model: ready to train, with its adapter or unfrozen.
        encoder: encoder of the model.
        rows: all rows of the run; the longest decide.
        training: settings with a precision that is not `auto`.
        at_once: rows that go through the model together.

    Returns:
        Whether layers keep only their inputs.
    """
    if training.gradient_checkpointing != "auto":
        return training.gradient_checkpointing
    base = base_of(model)
    free = free_bytes(next(base.parameters()).device)
    if free is None or not rows or not getattr(base, "supports_gradient_checkpointing", False):
        return False
    longest = _longest(encoder, rows)
    if longest is None:
        return False
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    kept = kept_for_backward(model, encoder, longest, training.precision)
    answers = encoder.batch([longest]).answers.targets.numel()
    row = kept.row + logit_bytes(answers, base.config.get_text_config().vocab_size)
    return training_bytes(trained, 0, training.optimizer, keeps_best=True) + kept.once + at_once * row > SHARE * free


def _longest(encoder: Encoder, rows: Sequence[Example]) -> Example | None:
    """The row with the most tokens among those with the most pictures and characters; None where none can be encoded."""
    order = sorted(rows, key=lambda row: (len(row.images), row.length), reverse=True)
    lengths: dict[int, Example] = {}
    for row in order[:CANDIDATES]:
        try:
            lengths.setdefault(len(encoder.row(row).text["input_ids"]), row)
        except DataError:  # the preflight, or the first step, says what is wrong with it
            continue
    return lengths[max(lengths)] if lengths else None
