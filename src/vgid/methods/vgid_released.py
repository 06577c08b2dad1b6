r"""The released script of VGID's authors (arXiv 2606.00105), which is not the method that the paper describes:

.. math:: L = \alpha \sum_{s,v} KL(p_T \| p) / b \;\text{and}\; \beta \sum_{s,v} KL(p_0 \| p) / b \;\text{in turn}

The teacher looks at noise and reads no instruction. The divergence is taken at all positions (picture, prompt and padding too), summed and
divided by the number of rows; one optimizer step on forget rows is followed by one on retain rows, so that an epoch shows every forget row
once and as many retain rows.

The rest of the script is in the recipes `released` (its defaults, 5e-4 for 5 epochs) and `released-readme` (its README, 2e-5 for 1 epoch):
adapters by the ends of names, which the vision tower has too, the prompt without an end token, and gradients that are not clipped. Its
teacher is a copy of the model in float16; with `teacher_precision: fp16` the base computes in float16 here, from the weights as they are.

Shapes: b rows, s positions, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.losses import kl_divergence
from vgid.methods.base import METHODS, Capability, LossOutput, Method, MethodConfig, Range, Search, StepBatch, Unsupported
from vgid.models.adapters import reference
from vgid.models.forward import all_logits
from vgid.perturbation import NoiseConfig, perturb_batch


class VGIDReleasedConfig(MethodConfig):
    """Settings of the released script.

    Attributes:
        noise: how the teacher's picture is perturbed; the script replaces it by uniform noise in the processor's normalised space.
        redraw: draw the noise anew at every step, or once per picture.
        alpha: weight of the forget term.
        beta: weight of the retain term.
        alternate: one optimizer step on forget rows, the next on retain rows; false adds both up in every step.
        teacher_precision: `fp16` lets the base compute in float16, as the script's teacher does; `same` as the model in training does.
    """

    noise: NoiseConfig = NoiseConfig(kind="uniform", space="normalised")
    redraw: bool = True
    alpha: float = Field(default=1.0, ge=0.0)
    beta: float = Field(default=1.0, ge=0.0)
    alternate: bool = True
    teacher_precision: Literal["same", "fp16"] = "same"


@METHODS.register("vgid_released")
class VGIDReleased(Method[VGIDReleasedConfig]):
    """Distil the frozen base, shown noise, at all positions of the prompt and the answer."""

    Config = VGIDReleasedConfig
    paper = "2606.00105"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {"training.learning_rate": Range(2e-5, 5e-3, log=True), "method.beta": Range(0.5, 8.0, log=True)}

    def unsupported(self) -> Mapping[Capability, Unsupported]:
        """Padding counts in the loss, and its amount depends on the other rows of the batch."""
        fix = "use the method vgid, which compares answer tokens"
        found = Unsupported("padding counts in the loss, so rows cannot be taken apart or share a row", fix)
        return {"packing": found, "splitting": found}

    @property
    def alternates(self) -> bool:
        """As configured."""
        return self.config.alternate

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """alpha x forget + beta x retain; where steps take turns, a batch has one of them."""
        weights = {"forget": self.config.alpha, "retain": self.config.beta}
        parts = {
            side: self._divergence(model, rows, batch.step, forget=side == "forget")
            for side, rows in (("forget", batch.forget), ("retain", batch.retain))
            if rows and weights[side]
        }
        total = sum((weights[name] * part for name, part in parts.items()), torch.zeros((), device=self.context.device))
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    def _divergence(self, model: Any, examples: tuple[Example, ...], step: int, *, forget: bool) -> Tensor:
        batch = self.context.batch(examples)
        seen = self._teacher_batch(examples, step) if forget else batch
        half = self.config.teacher_precision == "fp16"
        # Not `enabled=half`, which would switch off the run's own precision.
        precision = torch.autocast(self.context.device.type, torch.float16) if half else nullcontext()
        with reference(model, copy=self.context.reference_copy) as base, precision:
            target = all_logits(base, seen)
        return kl_divergence(target, all_logits(model, batch)).sum() / len(batch.ids)  # "batchmean" in the script

    def _teacher_batch(self, examples: tuple[Example, ...], step: int, *, prompts_only: bool = False) -> Batch:
        drawn = step if self.config.redraw else 0
        return perturb_batch(
            self.context.encoder, examples, self.config.noise, seed=(self.context.seed, drawn), instruction=None, prompts_only=prompts_only
        ).to(self.context.device)

    def teacher_prompts(self, examples: tuple[Example, ...]) -> Batch:
        """The noise alone, before the plain question."""
        return self._teacher_batch(examples, 0, prompts_only=True)
