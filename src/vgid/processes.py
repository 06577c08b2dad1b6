"""Several processes for one run, as `torchrun` and `accelerate launch` start them; everything here also holds for one process alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from importlib.util import find_spec
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from vgid.errors import ConfigError

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)
"""One process may take so long over what the others wait for, such as writing a large checkpoint."""
_asked_to_shard = False


def start() -> None:
    """Join the processes that a launcher started beside this one; does nothing where there is one alone.

    Raises:
        ConfigError: the launcher asks for DeepSpeed, which is not installed.
    """
    global _asked_to_shard
    # Sharding is done here and not by accelerate, so that it is the same under every launcher; hence it must not see this.
    _asked_to_shard |= os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if uses_deepspeed() and find_spec("deepspeed") is None:
        raise ConfigError("DeepSpeed is asked for, but not installed", fix="pip install deepspeed, or use the fsdp2 launch configuration")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def count() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one; 0 is the first, and the only one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def launched_first() -> bool:
    """Whether a launcher started this process as its first, or none did; holds before the processes are joined, too."""
    return int(os.environ.get("RANK", "0")) == 0


def asked_to_shard() -> bool:
    """Whether the launcher's configuration asks for FSDP."""
    return _asked_to_shard


def uses_deepspeed() -> bool:
    """Whether the launcher's configuration asks for DeepSpeed, which has ways of its own with gradients and optimizers."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def default_device() -> torch.device:
    """A GPU of this process's own, if there is one."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def exchange(mine: T) -> list[T]:
    """What every process brings, in the order of their numbers; all must call it."""
    if count() == 1:
        return [mine]
    everyone: list[T | None] = [None] * count()
    dist.all_gather_object(everyone, mine)
    return everyone  # type: ignore[return-value]


def from_first(mine: T) -> T:
    """What the first process brings; all must call it."""
    if count() == 1:
        return mine
    box = [mine]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes; a parameter without one anywhere keeps none."""
    wanted = [p for p in parameters if p.requires_grad]
    if count() == 1 or not wanted:
        return
    reached = torch.tensor([float(p.grad is not None) for p in wanted], device=wanted[0].device)
    dist.all_reduce(reached)
    waiting = []
    for parameter, yes in zip(wanted, reached.tolist(), strict=True):
        if yes:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(dist.all_reduce(parameter.grad, async_op=True))
    for work in waiting:
        work.wait()


# -- FSDP2 ----------------------------------------------------------------------------------------------------------------


def shard(model: torch.nn.Module) -> None:
    """Spread a model's parameters over the processes (FSDP2), layer by layer as its family says; changes the model in place."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a model's parameters lie in several processes, so that none can take a pass alone."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread over the processes; all must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, where `like` is spread; no process needs another for it."""
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
