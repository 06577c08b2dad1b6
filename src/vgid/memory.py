"""Working with as much memory as there is: batches are halved where they do not fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

log = logging.getLogger("vgid")
T = TypeVar("T")
R = TypeVar("R")


def as_many_as_fit(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
    """Call a function on all items at once; where memory is not enough, on one half after the other, and so on.

    Args:
        call: a function from items to one result for each of them.
        items: its argument.

    Returns:
        One result for each item, in their order.

    Raises:
        RuntimeError: memory is not enough for a single item.
    """
    try:
        return list(call(items))
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(items) < 2:
            raise
    # After the except clause, which would keep the tensors of the failed call alive.
    free_memory()
    half = len(items) // 2
    log.warning("memory does not hold %d rows at once: one half after the other", len(items))
    return [*as_many_as_fit(call, items[:half]), *as_many_as_fit(call, items[half:])]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that the memory of a device or of the host was not enough."""
    # The allocator for CPUs has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def gigabytes(count: int) -> str:
    """Format a number of bytes, as in `1.50 GB`."""
    return f"{count / 1e9:.2f} GB"


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor without a wait: from pageable memory, the host would wait until a GPU has done all that is queued."""
    if torch.device(device).type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return (value if value.is_pinned() else value.pin_memory()).to(device, non_blocking=True)


def free_memory() -> None:
    """Return memory that PyTorch caches without using it to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, within a limit that PyTorch was given for this process; None where the system does not say.

    What PyTorch keeps from earlier work without using it is given back first: after answers were generated it may be most of the device.
    """
    if device.type == "cuda":
        free_memory()
        on_device, total = torch.cuda.mem_get_info(device)
        limit = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_reserved(device)
        return min(int(on_device), int(limit))
    free = [value for value in (_host_free(), _group_free()) if value is not None]
    return min(free) if free else None


def _host_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _group_free(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take."""
    try:
        most, used = ((folder / name).read_text("utf-8").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return None if most == "max" else max(0, int(most) - int(used))
