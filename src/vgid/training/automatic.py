"""Settings that are `auto`: worked out from the device and its memory when a run starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch

from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.memory import free_bytes
from vgid.models.structure import base_of
from vgid.settings import Precision, TrainingConfig
from vgid.training.memory_estimate import SHARE, checkpointed_row, decoder_shape, kept_for_backward, logit_bytes, training_bytes

RATE_BY_WIDTH = 0.4
"""Learning rate of LoRA, times the width of the language model."""
CANDIDATES = 8
"""Rows with the most pictures and characters that are encoded to find the longest one."""
WORTH_COMPILING = 300
"""Steps from which on compiled layers are taken to save more time than compiling them takes, some minutes at 7B. Chosen by hand: how much
they save on a GPU was not measured."""
LEAST_TOKENS = {"cpu": 512, "cuda": 4096}
"""Tokens of a pass, by kind of device, from which on more passes cost less time than gradient checkpointing. On an H100 passes of 2,800
tokens of a 7B model took a third longer for each token than passes of 5,600, and checkpointing takes a third longer; on a CPU a pass alone
takes as long as some 60 tokens. Chosen by hand."""


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


def compiles(given: bool | Literal["auto"], device: torch.device, steps: int, *, supported: bool) -> bool:
    """Whether a run compiles the decoder's layers: `auto` does so on a GPU, in runs of `WORTH_COMPILING` steps.

    Args:
        given: the setting.
        device: device of the model.
        steps: steps of the run.
        supported: whether the method's loss, and the way the model is held, are fit for it.

    Returns:
        The decision.
    """
    if given != "auto":
        return given
    if device.type != "cuda" or not supported or steps < WORTH_COMPILING:
        return False
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    return find_spec("triton") is not None and compiler is not None


class MemoryPlan(NamedTuple):
    """How a run keeps its steps within memory.

    Attributes:
        saves: whether layers keep only their inputs (gradient checkpointing).
        max_tokens: tokens that go through the model at once; None for no limit.
    """

    saves: bool
    max_tokens: int | None


def memory_plan(model: Any, encoder: Encoder, rows: Sequence[Example], training: TrainingConfig, at_once: int, *, cuts: bool) -> MemoryPlan:
    """Decide on gradient checkpointing and on the tokens of a pass, as set, or by free memory and what a row is measured to keep.

    Args:
        model: ready to train, with its adapter or unfrozen.
        encoder: encoder of the model.
        rows: all rows of the run; the longest decide.
        training: settings with a precision that is not `auto`.
        at_once: rows of a step that go through the model together where memory allows.
        cuts: whether a step can be cut into passes by its tokens.

    Returns:
        The plan.
    """
    base, given = base_of(model), training.gradient_checkpointing
    device = next(base.parameters()).device
    asked = given == "auto" or (cuts and training.max_tokens == "auto")
    free = free_bytes(device) if asked and rows else None
    longest = _longest(encoder, rows) if free is not None else None
    if free is None or longest is None:
        return MemoryPlan(given is True, training.max_tokens if isinstance(training.max_tokens, int) else None)
    kept = kept_for_backward(model, encoder, longest, training.precision)
    shape = decoder_shape(base.config.get_text_config())
    encoded = encoder.row(longest)
    tokens = len(encoded.text["input_ids"])
    logits = logit_bytes(tokens - encoded.prompt_length, shape["vocabulary"])
    saved = checkpointed_row(kept.row, shape["layers"], tokens, shape["hidden"], torch.finfo(base.dtype).bits // 8)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return chosen(
        training,
        room=SHARE * free - training_bytes(trained, 0, training.optimizer, keeps_best=True) - kept.once,
        plain=(kept.row + logits) / tokens,
        saved=(saved + logits) / tokens if getattr(base, "supports_gradient_checkpointing", False) else None,
        step=at_once * tokens,
        least=least_tokens(device),
        cuts=cuts,
    )


def least_tokens(device: torch.device) -> int:
    """`LEAST_TOKENS` of a device."""
    return LEAST_TOKENS.get(device.type, LEAST_TOKENS["cuda"])


def chosen(training: TrainingConfig, *, room: float, plain: float, saved: float | None, step: int, least: int, cuts: bool) -> MemoryPlan:
    """Choose among more passes and gradient checkpointing, where a step does not fit into memory at once.

    Args:
        training: settings; what is not `auto` stays.
        room: bytes for activations.
        plain: bytes that a token takes.
        saved: bytes that a token takes with gradient checkpointing; None where the model does not support it.
        step: tokens of the largest step.
        least: tokens of a pass below which gradient checkpointing costs less than the passes it spares.
        cuts: whether a step can be cut into passes by its tokens.

    Returns:
        The plan.
    """
    automatic = cuts and training.max_tokens == "auto"
    most = training.max_tokens if isinstance(training.max_tokens, int) else None
    needed = min(step, least if automatic else most or step)
    given = training.gradient_checkpointing
    saves = (saved is not None and room < needed * plain) if given == "auto" else given
    if automatic:
        fits = int(max(0.0, room) // (saved if saves and saved is not None else plain))
        most = None if fits >= step else max(1, fits)
    return MemoryPlan(saves, most)


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
