"""LoRA adapters on chosen parts of a model, and access to the base without them."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from vgid.errors import ConfigError, ModelError
from vgid.memory import free_bytes
from vgid.models.structure import base_of, inspect_model, linear_layers
from vgid.processes import gather_nothing
from vgid.settings import AdapterConfig

log = logging.getLogger("vgid")


def attach_lora(model: nn.Module, config: AdapterConfig, *, seed: int, log_targets: bool = True) -> PeftModel:
    """Put adapters on the linear layers in scope, and freeze everything else.

    Args:
        model: the model; its modules are replaced in place.
        config: rank, scale and scope of the adapters.
        seed: random seed of the adapters' first values.
        log_targets: whether to log the names of the adapted layers.

    Returns:
        The model in PEFT's wrapper.

    Raises:
        ModelError: the scope matches no linear layer, or the rank is larger than every layer's.
    """
    gather_nothing(model)  # what is frozen below must be the shards
    names = linear_layers(model, config.scope)
    if not names:
        found = inspect_model(model)
        raise ModelError(
            "the LoRA scope matches no linear layer",
            expected=f"linear layers in {', '.join(config.scope) or '(nothing)'}",
            got=f"language: {found.language}, projector: {found.projector}, vision: {found.vision}",
            fix="set adapter.scope to parts that have linear layers",
        )
    layers: list[Any] = [model.get_submodule(name) for name in names]
    most = max(min(layer.in_features, layer.out_features) for layer in layers)
    if config.rank > most:
        raise ModelError(
            "the rank of the adapter is larger than that of every layer",
            where="adapter.rank",
            expected=f"at most {most}",
            got=str(config.rank),
            fix="lower it, or train all parameters with adapter=null",
        )
    _check_room(model, names, config.rank)
    if log_targets:
        log.info("LoRA on %d linear layers: %s", len(names), summarise_names(names))
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=names,
        init_lora_weights=True if config.init == "default" else config.init,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, lora)


def _check_room(model: nn.Module, names: Sequence[str], rank: int) -> None:
    """Raises:
    ConfigError: the adapters alone, without gradients, would not fit into free memory.
    """
    layers: list[Any] = [model.get_submodule(name) for name in names]
    needed = 4 * rank * sum(layer.in_features + layer.out_features for layer in layers)
    free = free_bytes(next(model.parameters()).device)
    if free is not None and needed > free:
        raise ConfigError(
            "the adapter does not fit into memory",
            where="adapter.rank",
            expected=f"at most {free / 2**30:.1f} GiB, which are free",
            got=f"{needed / 2**30:.1f} GiB for rank {rank}",
            fix="set a lower adapter.rank",
        )


def summarise_names(names: Sequence[str]) -> str:
    """Join names for people: those that differ in a layer's number only appear once, with their count."""
    patterns = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return ", ".join(f"{name} ({count})" for name, count in patterns.items())


def adapted_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules that have an adapter, without PEFT's prefix."""
    return [name for name, module in base_of(model).named_modules() if hasattr(module, "lora_A")]


@contextmanager
def reference(model: Any, copy: nn.Module | None = None) -> Iterator[Any]:
    """Give the base as it was before training, for the time of a `with` statement; without gradients, in evaluation mode.

    Args:
        model: a model with an adapter, which is switched off meanwhile.
        copy: a frozen copy of the base, for a model whose own parameters are trained; None for a model with an adapter.

    Yields:
        The base. Afterwards the adapter is on again, and every module is in the mode it was in.

    Raises:
        ModelError: the model has no adapter, and no copy is given.
    """
    if copy is None and not isinstance(model, PeftModel):
        raise ModelError("the base is not available", expected="a model with an adapter, or a frozen copy", got=type(model).__name__)
    base = copy if copy is not None else model
    modes = [(module, module.training) for module in base.modules()]
    with torch.no_grad(), nullcontext() if copy is not None else model.disable_adapter():
        base.eval()
        try:
            yield base
        finally:
            for module, training in modes:
                module.training = training
