"""Gradient checkpointing, which saves memory, and compiled decoder layers, which save time; both end with their `with` statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vgid.errors import ModelError
from vgid.models.structure import base_of, decoder_layers


@contextmanager
def checkpointing(model: Any, on: bool = True) -> Iterator[None]:
    """Keep only the inputs of each layer, and compute the rest again in the backward pass (Chen et al., arXiv 1604.06174).

    PyTorch's re-entrant variant is not used: it computes gradients only where a layer's input needs them, and after a frozen vision tower
    and frozen embeddings it does not.

    Args:
        model: the model, with or without PEFT's wrapper.
        on: False to change nothing.

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
    """Compile the decoder's layers with `torch.compile`, each in place: all else, hooks included, stays unchanged.

    Args:
        model: the model, with or without PEFT's wrapper.
        on: False to change nothing.
    """
    layers = decoder_layers(base_of(model)) if on else []
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None  # what `compile` sets; PyTorch has no public way back
