"""Gradient checkpointing, which saves memory, and compiled decoder layers, which save time; both end with their `with` statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn

from vgid.errors import ModelError
from vgid.models.structure import base_of, decoder_layers

VARIANTS = 64
"""Variants of a layer that are compiled at most; further ones run uncompiled. Base, student, attacked student and adversary are four, each
with one row in a pass and with several."""


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
def compiled(model: Any, on: bool = True, backend: str = "inductor", *, forgiving: bool = False) -> Iterator[None]:
    """Compile what the decoder's layers do with `torch.compile`, each in place.

    A layer's forward function is compiled, not its call: hooks on layers, by which hidden states are read, and gradient checkpointing stay
    outside and are met in every pass. Switching adapters within a layer compiles another variant, and so does a hook within it. Lengths are
    free from the start. The first layer stays as it is: its input has no gradients, which would double the variants. So do passes with a
    cache of keys and values: they generate answers, a token at a time.

    Args:
        model: the model, with or without PEFT's wrapper.
        on: False to change nothing.
        backend: compiler, by PyTorch's name.
        forgiving: whether what cannot be compiled runs uncompiled, with a warning, in place of an error.
    """
    if not on:
        yield
        return
    layers = decoder_layers(base_of(model))[1:]
    settings = {
        "suppress_errors": forgiving,
        "skip_nnmodule_hook_guards": False,
        "recompile_limit": VARIANTS,
        "accumulated_recompile_limit": VARIANTS * max(1, len(layers)),
    }
    with torch._dynamo.config.patch(settings):
        fast = torch.compile(_run_layer, backend=backend, dynamic=True)
        for layer in layers:
            layer.forward = _compiled_forward(layer, fast)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own comes back


def _compiled_forward(layer: nn.Module, fast: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward function: compiled, and plain for passes with a cache of keys and values."""
    plain = layer.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            return plain(*args, **kwargs)
        # PyTorch 2.11 does not notice that other parameters are trained than when a variant was compiled, and gives gradients to those.
        trained = "".join("01"[parameter.requires_grad] for parameter in layer.parameters())
        return fast(layer, trained, *args, **kwargs)

    return forward


def _run_layer(layer: nn.Module, trained: str, *args: Any, **kwargs: Any) -> Any:
    """What is compiled, once for each value of `trained`, and for all layers alike."""
    assert trained  # a value that is looked at is part of what a variant is chosen by
    return type(layer).forward(layer, *args, **kwargs)
