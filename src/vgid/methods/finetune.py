"""Plain fine-tuning on the retain set: what memorises people in the demo, and what retrains the gold reference without them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from vgid.methods.base import METHODS, LossOutput, Method, StepBatch
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
        encoded = self.context.encoder.batch(batch.retain).to(self.context.device)
        values = answer_nll(answer_logits(model, encoded), encoded.answers.targets)
        loss = mean_over_examples(values, encoded.answers.rows, len(batch.retain))
        return LossOutput(loss, {"retain": loss.detach()})
