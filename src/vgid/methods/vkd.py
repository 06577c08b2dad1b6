r"""Visual knowledge distillation (VKD; Wang et al., arXiv 2512.11325): only the visual part is trained, and held where the base's is.

.. math:: L = -\ell(x_f, y) + \beta E_r[\|v(I_r) - v_0(I_r)\|^2 / \|v_0(I_r)\|^2] + \lambda \ell(x_r, y)

v is what the decoder sees of a picture: the output of the projector, token by token. The language model is frozen, so that all it knows by
name stays; rows without a picture are not trained on, and what they ask is not forgotten.

Written after the paper's abstract and public summaries. The form of the forget term, the weights and where v is taken are ours, and the
paper's pruning of neurons and masking of weights are left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from vgid.methods.base import METHODS, Context, Defaults, LossOutput, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.sight import Sight, require_pictures, visual_drift, with_pictures
from vgid.methods.common.terms import nll


class VKDConfig(MethodConfig):
    """Settings of VKD.

    Attributes:
        distil_weight: beta, weight of the distance from what the base sees of retain pictures.
        retain_weight: lambda, weight of the retain rows' likelihood.
    """

    distil_weight: float = Field(default=10.0, ge=0.0)
    retain_weight: float = Field(default=1.0, ge=0.0)


@METHODS.register("vkd")
class VKD(Method[VKDConfig]):
    """Ascend on forget pictures with the visual part alone, which keeps seeing retain pictures as the base does."""

    Config = VKDConfig
    paper = "2512.11325"
    needs = ("forget rows with pictures", "retain data", "the untouched base")
    defaults: ClassVar[Defaults] = {"adapter.scope": ["vision", "projector"], "training.parts": ["vision", "projector"]}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.distil_weight": Range(1.0, 100.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Get ready to keep what the base sees.

        Raises:
            DataError: no forget row has a picture.
        """
        super().prepare(model, context)
        require_pictures("vkd", context)
        self.sight = Sight(context)

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """-forget + beta x distance + lambda x retain, over rows with pictures; those without count as 0."""
        total = torch.zeros((), device=self.context.device)
        parts = dict.fromkeys([*(["forget"] if batch.forget else []), *(["distance", "retain"] if batch.retain else [])], total)
        if forget := with_pictures(batch.forget):
            parts["forget"] = -nll(model, self.context, forget) * (len(forget) / len(batch.forget))
        if retain := with_pictures(batch.retain):
            share = len(retain) / len(batch.retain)
            distance = visual_drift(self.sight.of(model, retain), self.sight.before(model, retain))
            parts |= {"distance": distance.mean() * share, "retain": nll(model, self.context, retain) * share}
        weights = {"forget": 1.0, "distance": self.config.distil_weight, "retain": self.config.retain_weight}
        total = sum((weights[name] * part for name, part in parts.items()), total)
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})
