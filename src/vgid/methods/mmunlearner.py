r"""MMUnlearner (Huo et al., arXiv 2502.11051): gradient ascent where it does not hurt.

.. math:: \Delta\theta \propto m \odot \nabla\ell_f - \lambda \nabla\ell_r, \quad m = 1[F_f / F_r \geq \tau]

F is the diagonal of the Fisher matrix at the base, without dropout: squared gradients of single examples, averaged. (Some
re-implementations square the gradient of a batch's mean instead, with dropout on.) What must be preserved is the retain set, with
pictures and without: to protect what the text says of the forgotten people, as in the paper, put such rows there.

The mask is one of weights, so the weights themselves are trained (`adapter: null`, parts by `training.parts`): the product of two LoRA
matrices cannot hold still at single entries.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from vgid.data.example import Example
from vgid.errors import RunError
from vgid.methods.base import METHODS, Context, Defaults, LossOutput, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.neurons import sample
from vgid.methods.common.terms import nll
from vgid.methods.engine import gradients, with_gradient
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")


class MMUnlearnerConfig(MethodConfig):
    """Settings of MMUnlearner.

    Attributes:
        threshold: tau, how much more a weight must matter to the forget set than to the retain set.
        retain_weight: lambda.
        rows: rows of each set, drawn by the seed, that estimate the Fisher information, at most.
    """

    threshold: float = Field(default=1.0, ge=0.0)
    retain_weight: float = Field(default=1.0, ge=0.0)
    rows: int = Field(default=128, ge=1)


def fisher(model: Any, context: Context, examples: Sequence[Example], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Diagonal Fisher information: the mean over examples of the squared gradient of each example's likelihood loss.

    Args:
        model: the model, in evaluation mode.
        context: encodes the rows.
        examples: rows.
        parameters: weights to estimate it for.

    Returns:
        One tensor for each parameter, of its shape.
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for example in examples:
        for sum_, gradient in zip(total, gradients(nll(model, context, (example,)), parameters), strict=True):
            sum_ += gradient.square() / len(examples)
    return total


@METHODS.register("mmunlearner")
class MMUnlearner(Method[MMUnlearnerConfig]):
    """Ascend on the forget set, but only at weights that matter more to it than to the retain set."""

    Config = MMUnlearnerConfig
    paper = "2502.11051"
    needs = ("retain data", "gradients of all trained weights")
    trainable = ("full",)
    defaults: ClassVar[Defaults] = {"adapter": None, "training.learning_rate": 2e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(2e-5, 2e-3, log=True),
        "method.threshold": Range(0.5, 4.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    @property
    def needs_reference(self) -> bool:
        """The masks hold all it needs to know of the base."""
        return False

    def prepare(self, model: Any, context: Context) -> None:
        """Work out the mask.

        Raises:
            DataError: retain data is missing.
            RunError: no weight matters more to the forget set.
        """
        super().prepare(model, context)
        context.require_retain("mmunlearner")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        training = model.training
        model.eval()
        forget, retain = (
            fisher(model, context, sample(rows, self.config.rows, derive_seed(context.seed, "fisher", name)), self.parameters)
            for name, rows in (("forget", context.forget), ("retain", context.retain))
        )
        model.train(training)
        self.masks = [(f >= self.config.threshold * r) & (f > 0) for f, r in zip(forget, retain, strict=True)]
        chosen, total = (sum(int(count) for count in counts) for counts in ([m.sum() for m in self.masks], [m.numel() for m in self.masks]))
        if not chosen:
            raise RunError(
                "no weight matters more to the forget set than to the retain set",
                expected=f"weights with a Fisher ratio of at least {self.config.threshold}",
                got=f"none of {total}",
                fix="lower method.threshold, or train other parts",
            )
        log.info("ascending at %d of %d weights", chosen, total)

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """-forget + lambda x retain, with the mask on the forget term's gradient."""
        value, parts = torch.zeros((), device=self.context.device), dict[str, Tensor]()
        total = [torch.zeros_like(p) for p in self.parameters]
        if batch.forget:
            parts["forget"] = -nll(model, self.context, batch.forget)
            masked = zip(gradients(parts["forget"], self.parameters), self.masks, strict=True)
            total = [g * mask for g, mask in masked]
            value = value + parts["forget"].detach()
        if batch.retain and self.config.retain_weight:
            parts["retain"] = nll(model, self.context, batch.retain)
            total = [t + self.config.retain_weight * g for t, g in zip(total, gradients(parts["retain"], self.parameters), strict=True)]
            value = value + self.config.retain_weight * parts["retain"].detach()
        return LossOutput(with_gradient(value, self.parameters, total), {name: part.detach() for name, part in parts.items()})
