"""When memory does not suffice: how to tell, and what one would need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

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


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.2f} GB"


def free_memory() -> None:
    """Give memory that is cached but unused back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
