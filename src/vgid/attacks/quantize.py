"""Round the weights: an edit that is smaller than a rounding step is gone (arXiv 2410.16454)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, plain_copy
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.models.structure import linear_layers

Format = Literal["int8", "int4", "nf4"]
BLOCK = 64
"""Weights of one scale in NF4."""
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 levels of 4-bit NormalFloat (QLoRA, arXiv 2305.14314)."""


class QuantizeConfig(Settings):
    """`formats`: tried one after the other."""

    formats: tuple[Format, ...] = ("int8", "int4")


@ATTACKS.register("quantize")
class Quantize(Attack[QuantizeConfig]):
    """All linear layers but the head, to 8 and 4 bits by rounding to nearest, and to NF4; computed in full precision afterwards."""

    Config = QuantizeConfig
    access = "weights"
    finds = "edits that vanish under 4 bits"
    full: ClassVar = {"formats": ("int8", "int4", "nf4")}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each format; a model that is held in few bits already is not rounded again."""
        if is_quantised(loaded.model):
            return {}
        levels: Outcomes = {}
        for format in self.config.formats:
            copied = plain_copy(loaded)
            with torch.no_grad():
                for name in linear_layers(copied.model, ("language", "projector", "vision")):
                    weight = copied.model.get_submodule(name).weight
                    weight.copy_(rounded(weight, format))
            found = outcome(copied, material, lambda row: [row])
            assert found is not None
            levels[format] = found
        return levels


def rounded(weight: Tensor, format: Format) -> Tensor:
    """The nearest weights `[out, in]` that the format can hold: integers times a scale per output, or NF4 levels per block of 64."""
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
