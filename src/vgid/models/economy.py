"""Less memory or less time for a step: gradient checkpointing, and compiled decoder layers. Both are undone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from vgid.errors import ModelError
from vgid.models.structure import inspect_model


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
    base = plain(model)
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
    layers = decoder_layers(plain(model)) if on else []
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's stack of layers: the longest list of modules in it."""
    decoder = model.get_submodule(inspect_model(model).language[0])
    stacks = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    return list(max(stacks, key=lambda stack: len(list(stack))))


def plain(model: Any) -> Any:
    """The model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
