"""Linear layers with LoRA as one operation of autograd, with no more kernels than there are matrix products.

PEFT computes W x, then for each adapter scales and adds B A x: on a GPU each of these small steps is a kernel that the host must start, and
each addition reads and writes a whole output. Here products are added as they are computed, forward and backward, and the casts of the
adapters' matrices under autocast are made once, until a matrix changes. What PEFT computes in any other way is left to PEFT.

Shapes: n positions, i inputs, o outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from vgid.processes import is_sharded


class _Update(NamedTuple):
    """One adapter of a layer, which adds `scale` B A x."""

    down: nn.Parameter
    up: nn.Parameter
    scale: float


@contextmanager
def fused(model: nn.Module, on: bool = True) -> Iterator[None]:
    """Within the `with` statement, linear layers with LoRA take fewer kernels; results differ by rounding.

    Args:
        model: the model, with or without adapters; one that is sharded over processes is not changed, and neither are layers in 4 bits.
        on: False to change nothing.
    """
    layers = [module for module in model.modules() if _is_plain(module)] if on and not is_sharded(model) else []
    casts: dict[int, tuple[tuple[Any, ...], Tensor]] = {}
    # PyTorch's fused optimizers change a matrix without a new version of it.
    hook = register_optimizer_step_post_hook(lambda *_: casts.clear())
    for layer in layers:
        layer.forward = partial(_forward, layer, casts)
    try:
        yield
    finally:
        hook.remove()
        for layer in layers:
            del layer.forward


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer is LoRA on a linear layer whose own weights are frozen."""
    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    return not any(parameter.requires_grad for parameter in module.base_layer.parameters())


def _forward(layer: Any, casts: dict[int, tuple[tuple[Any, ...], Tensor]], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    usual = layer.disable_adapters or layer.merged or not names or args or kwargs
    if usual or any(name in layer.lora_variant or not isinstance(layer.lora_dropout[name], nn.Identity) for name in names):
        return Linear.forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    updates = [_Update(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]) for name in names]
    base, kind = layer.base_layer, x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    matrices = [_cast(matrix, dtype, casts) for update in updates for matrix in (update.down, update.up)]
    bias = None if base.bias is None else base.bias.to(dtype)
    scales = [update.scale for update in updates]
    return _Products.apply(x.to(dtype), base.weight.to(dtype), bias, scales, *matrices)  # type: ignore[no-any-return,no-untyped-call]


def _cast(matrix: nn.Parameter, dtype: torch.dtype, casts: dict[int, tuple[tuple[Any, ...], Tensor]]) -> Tensor:
    """A matrix in another precision, once for all passes until it is changed, frozen or trained."""
    if matrix.dtype == dtype:
        return matrix
    state = (matrix._version, matrix.requires_grad, torch.is_grad_enabled(), dtype)
    known = casts.get(id(matrix))
    if known is None or known[0] != state:
        known = casts[id(matrix)] = (state, matrix.to(dtype))
    return known[1]


class _Products(torch.autograd.Function):
    """y = x W' + b + sum_k s_k (x A_k') B_k', without a gradient for W and b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scales: Sequence[float], *matrices: Tensor) -> Tensor:
        """Outputs `[..., o]` of inputs `[..., i]`; matrices `[r, i]` and `[o, r]` in turn."""
        flat = x.reshape(-1, x.shape[-1])
        out = F.linear(flat, weight, bias)
        inner = [flat @ down.T for down in matrices[::2]]  # [n, r]
        for each, up, scale in zip(inner, matrices[1::2], scales, strict=True):
            out.addmm_(each, up.T, alpha=scale)
        trained = ctx.needs_input_grad[4:]
        ctx.scales = scales
        # Only what a gradient needs is kept: of a frozen first matrix no inputs, of a frozen second one no inner values.
        kept = [each if yes else None for each, yes in zip(inner, trained[1::2], strict=True)]
        ctx.save_for_backward(flat if any(trained[::2]) else None, weight, *kept, *matrices)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients of inputs and matrices."""
        flat, weight, *others = ctx.saved_tensors
        count = len(ctx.scales)
        inner, downs, ups = others[:count], others[count::2], others[count + 1 :: 2]
        g = gradient.reshape(-1, gradient.shape[-1])
        of_x = g @ weight if ctx.needs_input_grad[0] else None
        found: list[Tensor | None] = []
        for place, (each, down, up, scale) in enumerate(zip(inner, downs, ups, ctx.scales, strict=True)):
            of_down, of_up = ctx.needs_input_grad[4 + 2 * place : 6 + 2 * place]
            back = g @ up if of_down or of_x is not None else None  # [n, r]
            if of_x is not None:
                of_x.addmm_(back, down, alpha=scale)
            found.append(torch.addmm(down, back.T, flat, beta=0, alpha=scale) if of_down and back is not None else None)
            found.append(torch.addmm(up, g.T, each, beta=0, alpha=scale) if of_up else None)
        return (of_x.view(*gradient.shape[:-1], -1) if of_x is not None else None, None, None, None, *found)
