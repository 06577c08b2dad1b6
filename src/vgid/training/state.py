"""The state of a run: copied from model, optimizer and trainer into a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from vgid.curves import Curves
from vgid.processes import full_tensor, local_shard, rank
from vgid.training.checkpointing import Checkpoint

Tensors = Mapping[str, Tensor]


class Evaluations(Protocol):
    """Early stopping, as far as a checkpoint is concerned: it has a state of its own."""

    best_weights: Tensors

    def notes(self) -> dict[str, Any]:
        """The state without the weights, as JSON values."""

    def put_back(self, notes: Mapping[str, Any], weights: Tensors) -> None:
        """Restore both."""


def capture(trainer: Any, validation: Evaluations | None, *, done: bool) -> Checkpoint:
    """Copy everything that a run needs to go on, with tensors whole and on the host; all processes must call it.

    Args:
        trainer: the trainer, with its model and optimizer.
        validation: early stopping.
        done: training has ended, so that the optimizer's state is not needed any more.

    Returns:
        The checkpoint.
    """
    model, optimizer = trainer.model, bare(trainer.optimizer)
    tensors = {f"weights/{name}": _stored(p) for name, p in model.named_parameters() if p.requires_grad or _is_adapter(name)}
    best = validation.best_weights if validation else {}
    tensors |= {f"best/{name}": _stored(value) for name, value in best.items()}
    if not done:
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer, model).items()}
        tensors |= {f"method/{name}": _stored(value) for name, value in trainer.gradient_step.method.state_dict().items()}
    scaler = trainer.accelerator.scaler
    notes = {
        "step": trainer.state.global_step,
        "done": done,
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "micro_batch": trainer.gradient_step.micro_batch,
        "max_tokens": trainer.gradient_step.max_tokens,
        "curves": trainer.curves,
        "looks": validation.notes() if validation else None,
    }
    return Checkpoint(tensors, notes)


def put_back(trainer: Any, validation: Evaluations | None, checkpoint: Checkpoint) -> None:
    """Restore a checkpoint into a trainer with a model and an optimizer that are ready to train.

    Args:
        trainer: the trainer.
        validation: early stopping.
        checkpoint: what `capture` returned.
    """
    notes = checkpoint.notes
    put_result(trainer.model, validation, checkpoint)
    put_optimizer_tensors(bare(trainer.optimizer), trainer.model, checkpoint.below("optimizer/"))
    trainer.gradient_step.method.load_state_dict(checkpoint.below("method/"))
    trainer.lr_scheduler.load_state_dict(notes["scheduler"])
    for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    if notes["scaler"] is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(notes["scaler"])
    trainer.gradient_step.micro_batch = notes["micro_batch"]
    # Free memory may have changed: other passes would round otherwise.
    trainer.gradient_step.max_tokens = notes.get("max_tokens", trainer.gradient_step.max_tokens)
    trainer.curves = curves_of(notes)
    trainer.state.global_step = notes["step"]


def put_result(model: torch.nn.Module, validation: Evaluations | None, checkpoint: Checkpoint) -> None:
    """Restore only weights and early stopping: all that is needed of a run that has been trained to its end.

    Args:
        model: ready to train.
        validation: early stopping.
        checkpoint: what `capture` returned.
    """
    put_weights(model, checkpoint.below("weights/"))
    if validation:
        validation.put_back(checkpoint.notes["looks"], checkpoint.below("best/"))


def curves_of(notes: Mapping[str, Any]) -> Curves:
    """Curves as they were; JSON knows no tuples."""
    return {name: [(step, value) for step, value in points] for name, points in notes["curves"].items()}


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """What is trained, whole, as it is; all processes must call it."""
    return {name: full_tensor(p.detach()) for name, p in model.named_parameters() if p.requires_grad}


def put_weights(model: torch.nn.Module, weights: Tensors) -> None:
    """Put whole weights in place, of a model that may be sharded over processes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(local_shard(weights[name], parameter))


def optimizer_tensors(optimizer: Any, model: torch.nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, whole, as `PARAMETER/KEY`; all processes must call it."""
    return {
        f"{name}/{key}": _stored(value)
        for part, _, name, parameter in _parameters(optimizer, model)
        for key, value in part.state.get(parameter, {}).items()
    }


def _is_adapter(name: str) -> bool:
    """Whether a parameter is one of the adapter's own; a second adapter, such as an adversary's, is in its method's state.

    What a method has fixed of the adapter before training (`vgid.methods.vgid.narrow`) is kept too: worked out again on another machine it
    may have other signs, and what was trained behind it would mean something else.
    """
    return ".lora_" in name and ".default." in name


def put_optimizer_tensors(optimizer: Any, model: torch.nn.Module, tensors: Tensors) -> None:
    """Restore the optimizer's state.

    Args:
        optimizer: the optimizer.
        model: the model, whose parameters name the state.
        tensors: what `optimizer_tensors` returned.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        states.setdefault(name, {})[key] = value
    for part, group, name, parameter in _parameters(optimizer, model):
        if name in states:
            on_device = group.get("fused") or group.get("capturable")
            part.state[parameter] = {
                # A count of steps is one number, which is never sharded and mostly stays on the host.
                key: (value.to(parameter.device) if on_device else value) if key == "step" else local_shard(value, parameter)
                for key, value in states[name].items()
            }


def bare(optimizer: Any) -> Any:
    """The optimizer inside accelerate's wrapping."""
    return getattr(optimizer, "optimizer", optimizer)


def _parameters(optimizer: Any, model: torch.nn.Module) -> Iterator[tuple[Any, dict[str, Any], str, torch.nn.Parameter]]:
    """(part of the optimizer, group, name, parameter)."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for part in getattr(optimizer, "parts", [optimizer]):
        for group in part.param_groups:
            for parameter in group["params"]:
                yield part, group, names[parameter], parameter


def _stored(tensor: Tensor) -> Tensor:
    """The whole tensor on the host; the first process alone needs it, but all must call this."""
    value = full_tensor(tensor.detach())
    return value.to("cpu", copy=True).contiguous() if rank() == 0 else value.new_empty(0)
