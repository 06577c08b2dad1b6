"""How much memory a step takes, and how many rows fit. Bytes everywhere; all functions but `room` are pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.models.forward import answer_logits
from vgid.processes import shard_of

OPTIMIZER_STATES = {"adamw": 2, "muon": 1}
"""Numbers that an optimizer keeps for each trained parameter."""
LOGIT_COPIES = 8
"""Tables of float32 `[answer tokens, vocabulary]` alive at once: teacher and student, as logits, as log-probabilities and as
gradients, and two products of these."""
SHARE = 0.9
"""Fraction of free memory that a plan may use; the rest is for fragmentation (measured overhead on CPUs: docs/LOG.md)."""


@dataclass(frozen=True)
class Memory:
    """What a run needs on one device, in bytes.

    Attributes:
        weights: of the model, and of its frozen copy when all parameters are trained.
        training: adapter (or trained weights' own share of what follows), gradients, optimizer, and the best weights kept.
        once: activations that do not grow with the rows.
        row: activations of one row as long as the longest.
        logits: at the answer positions of one such row.
        rows: rows that go through the model together.
        answering: keys and values while answers are generated.
    """

    weights: int
    training: int
    once: int
    row: int
    logits: int
    rows: int
    answering: int

    @property
    def activations(self) -> int:
        """Bytes of activations of all rows that go through the model together."""
        return self.once + self.rows * self.row

    @property
    def total(self) -> int:
        """The larger of a training step and of answering."""
        return self.weights + max(self.training + self.activations + self.rows * self.logits, self.answering)

    def rows_that_fit(self, room: int) -> int:
        """Rows that fit at once into so much memory, all of them as long as the longest."""
        left = SHARE * room - self.weights - self.training - self.once
        return max(0, int(left // max(1, self.row + self.logits)))


def training_bytes(trained: int, adapter: int, optimizer: str, *, keeps_best: bool) -> int:
    """Adapter, gradients, optimizer state, and the copy of the best weights that early stopping keeps.

    Args:
        trained: bytes of all parameters that are trained, an adapter's included.
        adapter: bytes of the adapter alone; 0 where the model's own weights are trained.
        optimizer: by name.
        keeps_best: whether a copy of the best weights is kept.

    Returns:
        Bytes.
    """
    return adapter + trained * (1 + OPTIMIZER_STATES[optimizer] + keeps_best)


def logit_bytes(answer_tokens: int, vocabulary: int) -> int:
    """What distilling one row takes at its answer positions."""
    return LOGIT_COPIES * answer_tokens * vocabulary * 4


def checkpointed_row(row: int, layers: int, tokens: int, hidden: int, element: int) -> int:
    """Activations of a row with gradient checkpointing: the input of every layer, and all of one layer while it is recomputed.

    Args:
        row: bytes of a row's activations without checkpointing.
        layers: layers of the decoder.
        tokens: tokens of the row.
        hidden: hidden size.
        element: bytes of one number.

    Returns:
        Bytes.
    """
    return layers * tokens * hidden * element + row // layers


def cache_bytes(rows: int, tokens: int, layers: int, kv_heads: int, head: int, element: int) -> int:
    """Keys and values of rows while their answers are generated.

    Args:
        rows: rows generated together.
        tokens: tokens of a row, the answer included.
        layers: layers of the decoder.
        kv_heads: key-value heads.
        head: size of a head.
        element: bytes of one number.

    Returns:
        Bytes.
    """
    return 2 * rows * tokens * layers * kv_heads * head * element


def decoder_shape(config: Any) -> Mapping[str, int]:
    """Layers, hidden size, key-value heads, their size, and vocabulary, from a text config."""
    heads = config.num_attention_heads
    return {
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "vocabulary": config.vocab_size,
    }


# -- what a step keeps ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Bytes that a forward pass keeps for the backward pass: once, and for each row."""

    once: int
    row: int


def kept_for_backward(model: Any, encoder: Encoder, example: Example, precision: str) -> Kept:
    """Count what autograd keeps for one row and for two of the same; parameters themselves are not counted.

    Args:
        model: ready to train.
        encoder: encoder of the model.
        example: the row.
        precision: `fp32` or `bf16` (autocast).

    Returns:
        Bytes kept once, and for each row.
    """
    device = next(model.parameters()).device
    one, two = (_kept(model, encoder.batch([example] * count).to(device), precision) for count in (1, 2))
    return Kept(once=max(0, 2 * one - two), row=max(0, two - one))


def _kept(model: Any, batch: Batch, precision: str) -> int:
    # The storages' own addresses: those of their memory are all 0 without memory (meta tensors).
    own = {shard_of(each).untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        # Gathered parameters of a sharded model are given up after each layer.
        if storage._cdata not in own and not isinstance(value if value._base is None else value._base, Parameter):
            kept[storage._cdata] = storage.nbytes()
        return value

    model.train()
    device = batch.answers.targets.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = answer_logits(model, batch)  # alive, so that no storage is counted twice or reused
        total = sum(kept.values())
        del logits
    return total
