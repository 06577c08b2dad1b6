"""Several processes for one run, started by `torchrun` or `accelerate launch`; all functions also work in a single process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from vgid.errors import ConfigError

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)
"""Longest time that processes wait for one of them, for example while it writes a large checkpoint; chosen by hand."""
_asked_to_shard = False


def start() -> None:
    """Join the processes that a launcher started; does nothing in a single process.

    Raises:
        ConfigError: the launcher asks for DeepSpeed, which is not installed, or for its ZeRO-3.
    """
    global _asked_to_shard
    # The model is sharded by `shard` and not by accelerate, so that every launcher gives the same; accelerate must not see this variable.
    _asked_to_shard |= os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if uses_deepspeed() and _zero_stage() == 3:
        raise ConfigError(
            "DeepSpeed's ZeRO-3 is not supported",
            expected="ZeRO-2, or FSDP2, which shards parameters as ZeRO-3 does",
            got="ZeRO stage 3 in the launcher's configuration",
            fix="start with torchrun and training.shard=true, or with the fsdp2 launch configuration",
        )
    if uses_deepspeed() and find_spec("deepspeed") is None:
        raise ConfigError("DeepSpeed is asked for, but not installed", fix="pip install deepspeed, or use the fsdp2 launch configuration")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


def count() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; process 0 is the first, and the only one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def launched_first() -> bool:
    """Whether a launcher started this process as its first, or none did; holds before the processes are joined, too."""
    return int(os.environ.get("RANK", "0")) == 0


def asked_to_shard() -> bool:
    """Return whether the launcher's configuration asks for FSDP."""
    return _asked_to_shard


def uses_deepspeed() -> bool:
    """Return whether the launcher's configuration asks for DeepSpeed, which handles gradients and optimizers itself."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def _zero_stage() -> int:
    """The stage that the launcher asks for, in its own configuration or in DeepSpeed's."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    if Path(file).is_file():
        return int(json.loads(Path(file).read_text("utf-8")).get("zero_optimization", {}).get("stage", 0))
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0"))


def default_device() -> torch.device:
    """Return this process's GPU, or the CPU where there is no GPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def exchange(mine: T) -> list[T]:
    """Return the values of all processes, in the order of their numbers; every process must call it."""
    if count() == 1:
        return [mine]
    everyone: list[T | None] = [None] * count()
    dist.all_gather_object(everyone, mine)
    return everyone  # type: ignore[return-value]


def from_first(mine: T) -> T:
    """Return the value of the first process; every process must call it."""
    if count() == 1:
        return mine
    box = [mine]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes in place; a parameter without a gradient in any process keeps none."""
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


def shards(configured: bool) -> bool:
    """Return whether this run shards parameters over its processes.

    Args:
        configured: `training.shard`; the launcher's configuration may ask for it as well.
    """
    return count() > 1 and (configured or asked_to_shard())


def shard(model: torch.nn.Module) -> None:
    """Shard a model's parameters over the processes (FSDP2), in place; units are the layers that transformers names for the family."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def after_loading(model: Any) -> None:
    """Take back what transformers notes on a model that it has loaded in shards, for its own trainer and its configuration's file."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    del model.config.distributed_config
    model._is_distributed_loading_by_transformers = False
    register_fsdp_forward_method(model, "generate")


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether a model's parameters are sharded over processes, so that a forward pass needs all of them."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of one that may be sharded over processes; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's shard of a full tensor, on the device of `like` and sharded as `like` is; no communication is needed."""
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def shard_of(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that may be sharded; no communication is needed."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def first_values(tensor: Tensor, most: int) -> Tensor:
    """Return the first values of a tensor, flat; of a sharded one in the first process only, but every process must call it."""
    if isinstance(tensor, DTensor):
        first = -(-tensor.shape[0] // count()) * tensor.shape[1:].numel() if tensor.ndim else 0
        tensor = tensor.full_tensor() if first < most else tensor.to_local()
    return tensor.flatten()[:most]


def gather_nothing(model: torch.nn.Module) -> None:
    """Give up parameters that a forward pass has gathered and not yet given up."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
