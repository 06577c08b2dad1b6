"""Plain fine-tuning on the retain set: what memorises people in the demo, and what retrains the gold reference without them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from vgid.data.example import Example
from vgid.methods.base import METHODS, LossOutput, Method, StepBatch, mean_by_shape
from vgid.models.forward import answer_logits
from vgid.training.losses import answer_nll, mean_over_examples


class FinetuneConfig(BaseModel):
    """Fine-tuning has no settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@METHODS.register("finetune")
class Finetune(Method[FinetuneConfig]):
    """Cross-entropy on the recorded answers of the retain set; the forget set is never looked at."""

    Config = FinetuneConfig
    needs_reference = False

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Mean over answer tokens, then over examples."""

        def nll(examples: tuple[Example, ...]) -> Tensor:
            encoded = self.context.batch(examples)
            values = answer_nll(answer_logits(model, encoded), encoded.answers.targets)
            return mean_over_examples(values, encoded.owners, len(examples))

        loss = mean_by_shape(nll, batch.retain)
        return LossOutput(loss, {"retain": loss.detach()})
