"""When memory does not suffice: how to tell, and what one would need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from vgid.config import TrainingConfig

log = logging.getLogger("vgid")
T = TypeVar("T")
R = TypeVar("R")


def as_many_as_fit(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
    """What a call gives for each item; where memory does not hold all at once, for one half after the other.

    Raises:
        RuntimeError: memory does not even hold one.
    """
    try:
        return list(call(items))
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(items) < 2:
            raise
    # Out of the except clause, which keeps the tensors of the failed call alive.
    free_memory()
    half = len(items) // 2
    log.warning("memory does not hold %d rows at once: one half after the other", len(items))
    return [*as_many_as_fit(call, items[:half]), *as_many_as_fit(call, items[half:])]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory, of a device or of the host, was not enough."""
    # The allocator for CPUs has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def memory_needed(model: Any, config: TrainingConfig) -> str:
    """What training takes apart from activations, in words: weights, gradients, optimizer, and what the device has."""
    weights = sum(p.nbytes for p in model.parameters())
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    moments = {"adamw": 2, "muon": 1}[config.optimizer]
    words = [f"weights {gigabytes(weights)}", f"gradients {gigabytes(trained)}", f"optimizer about {gigabytes(moments * trained)}"]
    device = next(model.parameters()).device
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        words.append(f"the device {gigabytes(total)}, of which {gigabytes(free)} are free")
    return "; ".join(words)


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB"


def free_memory() -> None:
    """Give memory that is cached but unused back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
