"""Does the gradient reach what is to be trained? Found by trying one row, not by a formula."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from vgid.config import RunConfig
from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.errors import ModelError
from vgid.losses import answer_nll
from vgid.models.adapters import attach_lora
from vgid.models.forward import answer_logits
from vgid.models.memory_saving import checkpointing
from vgid.models.structure import base_of, inspect_model, unfreeze
from vgid.processes import gather_nothing
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Relative difference of gradient norms with and without checkpointing that rounding explains."""


@dataclass(frozen=True)
class Gradients:
    """Which trained modules a gradient reaches, by their part of the model."""

    modules: dict[str, int]
    """Part of the model to the number of modules trained in it."""
    unreached: tuple[str, ...]
    """Trained modules without any gradient."""
    checkpointing: bool
    """Whether gradient checkpointing gives the same gradients."""
    checkpointing_says: str

    @property
    def dead_parts(self) -> list[str]:
        """Parts of the model that were to be trained and of which no module is reached."""
        lost = [name.partition(":")[0] for name in self.unreached]
        return [part for part, count in self.modules.items() if lost.count(part) == count]


@contextmanager
def on_trial(model: Any, config: RunConfig) -> Iterator[Any]:
    """The model as it will be trained, with its adapter or unfrozen; afterwards as it was."""
    gather_nothing(model)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    if config.adapter is None:
        trained = unfreeze(model, config.training.parts)
    else:
        trained = attach_lora(model, config.adapter, seed=derive_seed(config.seed, "adapter"), log_targets=False)
    try:
        yield trained
    finally:
        if trained is not model:
            trained.unload()
        gather_nothing(model)
        for parameter, flag in flags:
            parameter.requires_grad, parameter.grad = flag, None
        for module, training in modes:
            module.training = training


def try_gradients(model: Any, encoder: Encoder, examples: Sequence[Example], precision: str) -> Gradients:
    """Send one loss back through a model on trial, without and with checkpointing.

    Args:
        model: the model with its adapter, or unfrozen.
        encoder: encoder of the model.
        examples: rows to try.
        precision: `fp32` or `bf16` (autocast).

    Returns:
        Which trained modules a gradient reaches, and whether checkpointing gives the same gradients.

    An adapter's A has no gradient as long as its B is zero, so a module counts as reached when any of its parameters is.
    """
    batch = encoder.batch(examples).to(next(model.parameters()).device)
    norms = _gradient_norms(model, batch, precision)
    owners = {name: _owner(name) for name in norms}
    structure = inspect_model(base_of(model))
    reached = {owners[name] for name, norm in norms.items() if norm > 0}
    parts: dict[str, int] = {}
    unreached = []
    for owner in dict.fromkeys(owners.values()):
        part = structure.part_of(owner.replace("base_model.model.", "", 1)) or "other"
        parts[part] = parts.get(part, 0) + 1
        if owner not in reached:
            unreached.append(f"{part}: {owner.replace('base_model.model.', '', 1)}")
    same, says = _with_checkpointing(model, batch, precision, norms)
    return Gradients(parts, tuple(unreached), same, says)


def _with_checkpointing(model: Any, batch: Batch, precision: str, plain_norms: dict[str, float]) -> tuple[bool, str]:
    try:
        with checkpointing(model):
            norms = _gradient_norms(model, batch, precision)
    except ModelError:
        return False, "the model does not support it"
    total = sum(norm**2 for norm in plain_norms.values()) ** 0.5
    apart = max(abs(norms[name] - norm) for name, norm in plain_norms.items()) / max(total, 1e-12)
    if apart > TOLERANCE[precision]:
        return False, f"gradients differ by {apart:.1%}"
    return True, "the same gradients"


def _gradient_norms(model: Any, batch: Batch, precision: str) -> dict[str, float]:
    model.train()
    model.zero_grad(set_to_none=True)
    device = batch.answers.targets.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # the same dropout both times
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = answer_nll(answer_logits(model, batch), batch.answers.targets).mean()
        loss.backward()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    norms = {name: 0.0 if p.grad is None else float(p.grad.float().norm()) for name, p in trained}
    model.zero_grad(set_to_none=True)
    return norms


def _owner(name: str) -> str:
    """The module that a parameter trains: the adapted one for an adapter's."""
    return name.partition(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0]
