"""How much memory a run takes, and how many rows of a step fit. Bytes everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.models.adapters import cast_by_autocast
from vgid.models.forward import answer_logits
from vgid.models.structure import decoder_layers, inspect_model
from vgid.processes import is_sharded, shard_of

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
        gathered: layers of a model sharded over processes that a pass holds whole at a time.
        ending: at the end of a run, while the model is merged, written, loaded again and compared.
    """

    weights: int
    training: int
    once: int
    row: int
    logits: int
    rows: int
    answering: int
    gathered: int = 0
    ending: int = 0

    @property
    def activations(self) -> int:
        """Bytes of activations of all rows that go through the model together."""
        return self.once + self.rows * self.row

    @property
    def total(self) -> int:
        """The largest of a training step, of answering, and of the end of the run."""
        during = max(self.training + self.activations + self.rows * self.logits, self.answering)
        return max(self.weights + self.gathered + during, self.ending)

    def rows_that_fit(self, room: int) -> int:
        """Rows that fit at once into so much memory, all of them as long as the longest."""
        left = SHARE * room - self.weights - self.gathered - self.training - self.once
        return max(0, int(left // max(1, self.row + self.logits)))


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of a model's weights, without adapters.

    Attributes:
        held: in one process.
        gathered: what a pass holds whole besides, where the weights are sharded over processes: two layers, and all that is in none.
        largest: of the decoder's largest matrix in float32.
    """

    held: int
    gathered: int
    largest: int


def weight_bytes(base: Any, processes: int | None = None) -> WeightBytes:
    """Add up a model's weights; tensors without memory (the meta device) do.

    Args:
        base: the model inside PEFT's wrapper.
        processes: processes to spread it over; None for the shards that are there.

    Returns:
        Bytes.
    """

    def size(parameters: Iterable[Tensor]) -> int:
        return sum(p.nbytes for p in parameters)

    own = [p for name, p in base.named_parameters() if ".lora_" not in name]
    layers = [[p for name, p in layer.named_parameters() if ".lora_" not in name] for layer in decoder_layers(base)]
    whole, one = size(own), max(size(layer) for layer in layers)
    sharded = is_sharded(base) if processes is None else processes > 1
    held = sum(shard_of(p).nbytes for p in own) if processes is None else -(-whole // processes)
    outside = whole - sum(size(layer) for layer in layers)
    return WeightBytes(held, 2 * one + outside if sharded else 0, max(p.numel() for layer in layers for p in layer) * 4)


def ending_bytes(weights: WeightBytes, adapter: int, *, quantised: int = 0) -> int:
    """What the end of a run takes: one model, and the largest matrix three times in float32 (update, sum, rounded sum).

    Args:
        weights: of the model.
        adapter: bytes of the adapter; 0 without.
        quantised: numbers of a model that is held in 4 bits, whose export is loaded in 16 bits; 0 for others.

    Returns:
        Bytes; merging a model in 4 bits takes the host's memory, not the device's.
    """
    if quantised:
        return 2 * quantised + adapter
    return weights.held + weights.gathered + adapter + (3 * weights.largest if adapter else 0)


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


def kept_by_decoder(base: Any, tokens: int) -> int:
    """Count what autograd keeps of one row in the decoder of a model on the meta device, of which nothing but shapes is known.

    Args:
        base: the model inside PEFT's wrapper, with its adapter or unfrozen, on the meta device.
        tokens: tokens of the row, pictures included.

    Returns:
        Bytes of a row. What a trained vision tower or projector keeps comes on top.
    """
    decoder = base.get_submodule(inspect_model(base).language[0])
    states = torch.empty(1, tokens, base.config.get_text_config().hidden_size, dtype=base.dtype, device="meta")
    mask = torch.empty(1, 1, tokens, tokens, dtype=base.dtype, device="meta")  # making one would look at values
    return _saved(base.train(), lambda: decoder(inputs_embeds=states, attention_mask=mask, use_cache=False))


def _kept(model: Any, batch: Batch, precision: str) -> int:
    device = batch.answers.targets.device

    def run() -> Tensor:
        reduced = precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced), cast_by_autocast(model, reduced):
            return answer_logits(model, batch)

    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _saved(model, run)


def _saved(model: Any, run: Callable[[], Any]) -> int:
    """Bytes of all storages that autograd keeps of a pass, parameters and buffers apart."""
    # The storages' own addresses: those of their memory are all 0 without memory (meta tensors).
    own = {shard_of(each).untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        # Gathered parameters of a sharded model are given up after each layer.
        if storage._cdata not in own and not isinstance(value if value._base is None else value._base, Parameter):
            kept[storage._cdata] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = run()  # alive, so that no storage is counted twice or reused
    total = sum(kept.values())
    del out
    return total
