"""Round the weights: an edit smaller than a rounding step disappears (arXiv 2410.16454)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, plain_copy
from vgid.attacks.ways import ways
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.models.structure import linear_layers

Format = Literal["int8", "int4", "nf4"]
BLOCK = 64
"""Number of weights that share a scale in NF4."""
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 levels of 4-bit NormalFloat (QLoRA, arXiv 2305.14314), in units of the scale."""


class QuantizeConfig(Settings):
    """Settings of the attack.

    Attributes:
        formats: number formats, one level each.
    """

    formats: tuple[Format, ...] = ("int8", "int4")


@ATTACKS.register("quantize")
class Quantize(Attack[QuantizeConfig]):
    """Round the weights of all linear layers but the head to 8 or 4 bits or to NF4, and compute in full precision with the result."""

    Config = QuantizeConfig
    access = "weights"
    finds = "edits that vanish under 4 bits"
    tries = "Compressing the model, which can undo a shallow change"
    full: ClassVar = {"formats": ("int8", "int4", "nf4")}
    most = 0.1
    position = 110

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each format. A model that is already held in few bits is not rounded again."""
        if is_quantised(loaded.model):
            return {}
        levels: Outcomes = {}
        for format in self.config.formats:
            found = outcome(rounded_copy(loaded, format), material, lambda row: ways(row, material))
            assert found is not None
            levels[format] = found
        return levels


def rounded_copy(loaded: LoadedModel, format: Format) -> LoadedModel:
    """Copy a model without any wrapper, with the weights of all linear layers but the head rounded to a number format."""
    copied = plain_copy(loaded)
    with torch.no_grad():
        for name in linear_layers(copied.model, ("language", "projector", "vision")):
            weight = copied.model.get_submodule(name).weight
            weight.copy_(rounded(weight, format))
    return copied


def rounded(weight: Tensor, format: Format) -> Tensor:
    """Round a weight matrix to the nearest values of a number format.

    Args:
        weight: `[out, in]`.
        format: `int8` or `int4` for integers times a scale for each output; `nf4` for NF4 levels times a scale for each block of 64.

    Returns:
        The rounded weights `[out, in]`, in the dtype of `weight`.
    """
    if format == "nf4":
        return _nf4(weight)
    most = 2 ** (8 if format == "int8" else 4) // 2 - 1  # 127 or 7, symmetric
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / most
    return ((weight.float() / scale).round() * scale).to(weight.dtype)


def _nf4(weight: Tensor) -> Tensor:
    flat = weight.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    levels = torch.tensor(NF4, device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    near = levels[torch.bucketize(blocks / scale, middles)] * scale
    return near.flatten()[: len(flat)].view_as(weight).to(weight.dtype)
