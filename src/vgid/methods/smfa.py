r"""SMFA: sculpted memory forgetting adapter (Zeng et al., arXiv 2511.20196).

Two adapters are trained on one base, side by side and blind to each other: one to refuse on the forget set (with retain rows, as IDK),
and an anchor on the retain set alone. Of the first one's update, those entries are dropped that oppose the anchor's and dominate it:

.. math::
    \Delta W'_f = \Delta W_f \odot (1 - C \odot R), \quad C = 1[\Delta W_a \Delta W_f < 0], \quad
    R = 1[k \rho |\Delta W_a| < |\Delta W_f|], \quad \rho = \|\Delta W_f\| / \|\Delta W_a\|

for each weight matrix. What is left goes into the weights, since it has no low rank any more.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.errors import RunError
from vgid.methods.base import METHODS, Context, LossOutput, Range, Search, StepBatch
from vgid.methods.common.refusals import RefusalConfig
from vgid.methods.common.terms import nll
from vgid.methods.idk import IDK
from vgid.models.adapters import adapted_modules
from vgid.processes import local_shard
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")
FORGET, ANCHOR = "default", "anchor"


class SMFAConfig(RefusalConfig):
    """Settings of SMFA.

    Attributes:
        k: how much larger an opposed entry must be to be dropped; more forgets more.
    """

    k: float = Field(default=5.0, ge=0.0)


def conflicts(forget: Tensor, anchor: Tensor, k: float) -> Tensor:
    """Find entries of a forgetting update that oppose the anchor's update and dominate it (equation in the module's docstring).

    Args:
        forget: the forgetting update of one layer.
        anchor: the retain anchor's update of the same layer, of the same shape.
        k: how much larger than the anchor's an opposed entry must be.

    Returns:
        Bool tensor of the updates' shape; True where an entry is to be dropped.
    """
    ratio = forget.norm() / (anchor.norm() + 1e-12)
    return torch.logical_and(anchor * forget < 0, k * ratio * anchor.abs() < forget.abs())


@METHODS.register("smfa")
class SMFA(IDK):
    """Learn to refuse, then drop what would hurt the retain set."""

    Config = SMFAConfig
    config: SMFAConfig
    paper = "2511.20196"
    trainable = ("adapter",)
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-4, 5e-3, log=True),
        "method.k": Range(0.5, 10.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Add the anchor.

        Raises:
            DataError: retain data is missing.
        """
        super().prepare(model, context)
        context.require_retain("smfa")
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(context.seed, "anchor"))
            model.add_adapter(ANCHOR, copy.deepcopy(model.peft_config[FORGET]))
        _train_both(model)

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """The refusing adapter's loss and the anchor's; no parameter is in both."""
        out = super().loss(model, batch)
        total, parts = out.total, dict(out.parts)
        if batch.retain:
            with _anchored(model):
                anchor = nll(model, self.context, batch.retain)
            total, parts["anchor"] = total + anchor, anchor.detach()
        _train_both(model)
        return LossOutput(total, parts)

    @torch.no_grad()
    def finalize(self, model: Any) -> Any:
        """Sculpt, and put what is left into the weights of the plain model.

        Raises:
            RunError: nothing was dropped, or nothing is left.
        """
        base = model.get_base_model()
        layers = [base.get_submodule(name) for name in adapted_modules(model)]
        counts = [(int(mask.sum()), int(((update != 0) & ~mask).sum())) for update, mask in map(self._sculpt, layers)]
        dropped, left = (sum(each) for each in zip(*counts, strict=True))
        if not dropped or not left:
            raise RunError(
                "sculpting dropped nothing" if left else "sculpting left nothing of the update",
                expected="some entries dropped and some left",
                got=f"{dropped} dropped, {left} left",
                fix=f"{'lower' if left else 'raise'} method.k, or train for longer",
            )
        log.info("dropped %d entries of the update, left %d", dropped, left)
        for layer in layers:
            update, mask = self._sculpt(layer)
            weight = layer.get_base_layer().weight
            weight.copy_((weight.float() + local_shard(update.masked_fill(mask, 0.0), weight)).to(weight.dtype))
        return model.unload()

    def _sculpt(self, layer: Any) -> tuple[Tensor, Tensor]:
        """A layer's forgetting update and which of its entries to drop."""
        forget, anchor = (layer.get_delta_weight(name).float() for name in (FORGET, ANCHOR))
        return forget, conflicts(forget, anchor, self.config.k)


@contextmanager
def _anchored(model: Any) -> Iterator[None]:
    """The anchor at work in place of the refusing adapter."""
    model.set_adapter(ANCHOR)
    try:
        yield
    finally:
        model.set_adapter(FORGET)


def _train_both(model: Any) -> None:
    """Let both adapters be trained: switching between them freezes the one that rests."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad = True
