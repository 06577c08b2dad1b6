"""Round the weights as calibrated quantisers do, which see what goes through each layer: GPTQ and AWQ (cf. arXiv 2605.02196).

Sources: GPTQ, arXiv 2210.17323; AWQ, arXiv 2306.00978. Both are used here with one scale for each output, as `quantize` rounds, and with
the inputs of the model in full precision.

Shapes: o outputs and i inputs of a layer, n positions of the calibration rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, plain_copy, plain_view, sample_rows
from vgid.attacks.quantize import rounded
from vgid.attacks.ways import ways
from vgid.data.example import Example
from vgid.evaluation.inference import frozen
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.models.structure import linear_layers

Quantiser = Literal["gptq", "awq"]
DAMPING = 0.01
"""What GPTQ adds to the diagonal of its Hessian, as a share of the diagonal's mean."""
STEPS = 20
"""Number of exponents in [0, 1) that AWQ tries for a layer."""


class Inputs(NamedTuple):
    """What goes into a linear layer.

    Attributes:
        products: sum of the outer products of the inputs, `[i, i]`.
        size: mean absolute value of each input, `[i]`.
    """

    products: Tensor
    size: Tensor


class RoundingConfig(Settings):
    """Settings of the attack.

    Attributes:
        quantisers: calibrated quantisers to 4 bits, one level each.
        rows: largest number of retain rows to calibrate on.
    """

    quantisers: tuple[Quantiser, ...] = Field(default=("gptq", "awq"), min_length=1)
    rows: int = Field(default=16, ge=1)


@ATTACKS.register("rounding")
class Rounding(Attack[RoundingConfig]):
    """Round the linear layers of the language model to 4 bits, each so that its outputs for retain rows change least."""

    Config = RoundingConfig
    access = "weights"
    finds = "edits that vanish under calibrated 4-bit rounding"
    tries = "Compressing the model with care for its answers, which can undo a small change"
    full: ClassVar[dict[str, Any]] = {"rows": 128}
    most = 0.1
    position = 115
    profile = "full"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each quantiser. A model that is already held in few bits is not rounded again."""
        if is_quantised(loaded.model):
            return {}
        rows = sample_rows(material.retain, self.config.rows, material.seed)
        source = plain_view(loaded)
        levels: Outcomes = {}
        # One quantiser and one block at a time: neither two copies nor the products of all layers of a large model fit into memory.
        for quantiser in self.config.quantisers:
            copied = plain_copy(loaded)
            for names in blocks(linear_layers(source.model, ("language",))):
                for name, inputs in inputs_of(source, names, rows, material.batch_size).items():
                    weight = source.model.get_submodule(name).weight.detach()
                    copied.model.get_submodule(name).weight.data.copy_((gptq if quantiser == "gptq" else awq)(weight, inputs))
            found = outcome(copied, material, lambda row: ways(row, material))
            assert found is not None
            levels[quantiser] = found
            del copied
        return levels


def blocks(names: Sequence[str]) -> list[list[str]]:
    """Group names of layers by the numbered block that they belong to."""
    groups: dict[str, list[str]] = {}
    for name in names:
        block = re.match(r".*\.\d+(?=\.)", name)
        groups.setdefault(block.group() if block else name, []).append(name)
    return list(groups.values())


def inputs_of(loaded: LoadedModel, names: Sequence[str], rows: Sequence[Example], batch_size: int) -> Mapping[str, Inputs]:
    """Sum up what goes into some layers for questions and answers.

    Args:
        loaded: the model; it is left unchanged.
        names: names of linear layers; those that are not reached are left out.
        rows: calibration rows.
        batch_size: number of rows in a forward pass.

    Returns:
        The inputs of each layer, in float32; padding is left out.
    """
    products: dict[str, Tensor] = {}
    sizes: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    real: list[Tensor] = []

    def add(name: str, _: Any, given: tuple[Tensor, ...]) -> None:
        x = given[0].detach().float()
        x = x[real[0]] if x.shape[:-1] == real[0].shape else x.flatten(0, -2)  # [n, i]
        products[name] = products.get(name, 0) + x.T @ x
        sizes[name] = sizes.get(name, 0) + x.abs().sum(0)
        counts[name] = counts.get(name, 0) + len(x)

    hooks = [loaded.model.get_submodule(name).register_forward_pre_hook(partial(add, name)) for name in names]
    try:
        with frozen(loaded.model):
            for start in range(0, len(rows), batch_size):
                batch = loaded.encoder.batch(rows[start : start + batch_size]).to(loaded.model.device)
                real[:] = [batch.model_inputs["attention_mask"].bool()]
                answer_logits(loaded.model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: Inputs(products[name], sizes[name] / counts[name]) for name in products}


def gptq(weight: Tensor, inputs: Inputs) -> Tensor:
    """Round column by column, and let the columns to come make up for the error of each.

    Args:
        weight: `[o, i]`.
        inputs: what goes into the layer.

    Returns:
        The rounded weights `[o, i]`, in the dtype of `weight`, on the grid that `quantize` uses for `int4`.
    """
    left = weight.float().clone()
    scale = left.abs().amax(1, keepdim=True).clamp_min(1e-12) / 7  # [o, 1]
    hessian = inputs.products.double().clone()
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean().clamp_min(1e-8))
    # Row j of the upper factor of the inverse is what OBQ's updates need once the columns before j are fixed.
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True).float()
    out = torch.empty_like(left)
    for j in range(left.shape[1]):
        out[:, j] = ((left[:, j : j + 1] / scale).round().clamp(-7, 7) * scale)[:, 0]
        error = (left[:, j] - out[:, j]) / inverse[j, j]
        left[:, j:] -= error[:, None] * inverse[j, j:]
    return out.to(weight.dtype)


def awq(weight: Tensor, inputs: Inputs) -> Tensor:
    """Round after the weights of inputs that are large on average were scaled up (`awq_scales`).

    Args:
        weight: `[o, i]`.
        inputs: what goes into the layer.

    Returns:
        The rounded weights `[o, i]`, scaled back, in the dtype of `weight`.
    """
    scales = awq_scales(weight, inputs)
    return (rounded(weight.float() * scales, "int4") / scales).to(weight.dtype)


def awq_scales(weight: Tensor, inputs: Inputs) -> Tensor:
    """The power of the inputs' mean size, with an exponent in [0, 1), under which rounding changes outputs least: `[i]`."""
    best, lowest = torch.ones_like(inputs.size), float("inf")
    for step in range(STEPS):
        scales = inputs.size.clamp_min(1e-6).pow(step / STEPS)
        scales = scales / (scales.max() * scales.min()).sqrt()
        change = rounded(weight.float() * scales, "int4") / scales - weight.float()
        error = float(((change @ inputs.products) * change).sum())
        if error < lowest:
            best, lowest = scales, error
    return best
