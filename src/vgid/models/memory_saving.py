"""Gradient checkpointing, which saves memory, and compiled decoder layers, which save time; both end with their `with` statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from vgid.errors import ModelError
from vgid.models.structure import base_of, decoder_layers

VARIANTS = 64
"""Variants of a layer that are compiled at most; further ones run uncompiled. Base, student, attacked student and adversary are four, each
with and without gradients, with pictures and without, and with lengths that are fixed at first and free later."""


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
def compiled(model: Any, on: bool = True, backend: str = "inductor") -> Iterator[None]:
    """Compile what the decoder's layers do with `torch.compile`, each in place.

    A layer's forward function is compiled, not its call: hooks on layers, by which hidden states are read, and gradient checkpointing stay
    outside and are met in every pass. Switching adapters within a layer compiles another variant, and so does a hook within it.

    Args:
        model: the model, with or without PEFT's wrapper.
        on: False to change nothing.
        backend: compiler, by PyTorch's name.
    """
    layers = decoder_layers(base_of(model)) if on else []
    settings = {
        "skip_nnmodule_hook_guards": False,
        "recompile_limit": VARIANTS,
        "accumulated_recompile_limit": VARIANTS * max(1, len(layers)),
    }
    with torch._dynamo.config.patch(settings) if on else nullcontext():
        for layer in layers:
            layer.forward = torch.compile(layer.forward, backend=backend)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own comes back
