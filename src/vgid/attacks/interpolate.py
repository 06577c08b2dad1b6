"""Merge the weights with those of the model before unlearning (weight interpolation; cf. arXiv 2203.05482, 2212.04089).

Fine-tuned models are merged with others of their family every day; an edit that only just suppresses facts is gone after a small step back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from vgid.attacks.asking import outcome
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, plain_copy, plain_view
from vgid.attacks.ways import ways
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised


class InterpolateConfig(Settings):
    """Settings of the attack.

    Attributes:
        shares: weight of the base in the mean of both models, each in (0, 1), one level each.
    """

    shares: tuple[float, ...] = Field(default=(0.1, 0.25), min_length=1)

    @field_validator("shares")
    @classmethod
    def _inside(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if min(shares) <= 0 or max(shares) >= 1:
            raise ValueError("each share must be above 0 and below 1")
        return shares


@ATTACKS.register("interpolate")
class Interpolate(Attack[InterpolateConfig]):
    """Take a weighted mean of the model's weights and the base's, and ask the clean questions.

    A model that never knew the facts gains some from a large share of the base, too: shares near 1/2 need a retrained reference.
    """

    Config = InterpolateConfig
    access = "weights"
    finds = "edits that a small step back towards the base undoes"
    tries = "Mixing it with the model from before the removal"
    full: ClassVar[dict[str, Any]] = {"shares": (0.1, 0.25, 0.4)}
    most = 0.1
    position = 136
    profile = "full"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each share. The attack needs a base whose tensors have the same names and shapes, not in few bits."""
        if "base" not in material.models or is_quantised(loaded.model):
            return {}
        base = plain_view(material.models["base"]())
        theirs = dict(base.model.named_parameters())
        copied = plain_copy(loaded)
        ours = dict(copied.model.named_parameters())
        if is_quantised(base.model) or {n: p.shape for n, p in ours.items()} != {n: p.shape for n, p in theirs.items()}:
            return {}
        before = {name: parameter.detach().clone() for name, parameter in ours.items()}
        levels: Outcomes = {}
        for share in self.config.shares:
            merge(ours, before, theirs, share)
            found = outcome(copied, material, lambda row: ways(row, material))
            assert found is not None
            levels[f"{100 * share:g} % base"] = found
        return levels


@torch.no_grad()
def merge(into: Mapping[str, Tensor], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], share: float) -> None:
    """Write the weighted mean of two models' tensors into a model's.

    Args:
        into: tensors to write to, by name.
        ours: tensors of the one model, of the same shapes.
        theirs: tensors of the other model.
        share: weight of the other model, in [0, 1].
    """
    for name, tensor in into.items():
        tensor.copy_(torch.lerp(ours[name].float(), theirs[name].to(tensor.device).float(), share))
