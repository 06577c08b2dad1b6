"""Less memory or less time for a step: gradient checkpointing, and compiled decoder layers. Both are undone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vgid.errors import ModelError
from vgid.models.structure import base_of, decoder_layers


@contextmanager
def checkpointing(model: Any, on: bool = True) -> Iterator[None]:
    """Keep the inputs of each layer only, and compute the rest again in the backward pass (Chen et al., arXiv 1604.06174).

    Not the re-entrant kind: that one passes gradients only where a layer's input needs them, which it does not behind a frozen
    vision tower and frozen embeddings.

    Raises:
        ModelError: the model's layers do not support it.
    """
    if not on:
        yield
        return
    base = base_of(model)
    if not getattr(base, "supports_gradient_checkpointing", False):
        raise ModelError(
            "the model does not support gradient checkpointing",
            got=type(base).__name__,
            fix="set training.gradient_checkpointing=false",
        )
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        base.gradient_checkpointing_disable()


@contextmanager
def compiled(model: Any, on: bool = True) -> Iterator[None]:
    """Compile the decoder's layers by `torch.compile`, each where it stands: all else, hooks included, stays as it is."""
    layers = decoder_layers(base_of(model)) if on else []
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
