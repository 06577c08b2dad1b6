"""Plain fine-tuning on the retain set: what memorises people in the demo."""

from __future__ import annotations

from typing import Any, ClassVar

from vgid.methods.base import METHODS, Context, Method, MethodConfig, StepBatch
from vgid.methods.common.terms import likelihood
from vgid.methods.engine import Term


class FinetuneConfig(MethodConfig):
    """Fine-tuning has no settings of its own."""


@METHODS.register("finetune")
class Finetune(Method[FinetuneConfig]):
    """Cross-entropy on the recorded answers of the retain set; the forget set is never looked at."""

    Config = FinetuneConfig
    kind = "reference"
    needs: ClassVar[tuple[str, ...]] = ("retain data",)

    @property
    def needs_reference(self) -> bool:
        """The loss does not use the base."""
        return False

    def prepare(self, model: Any, context: Context) -> None:
        """Make sure that there is something to learn."""
        super().prepare(model, context)
        context.require_retain("fine-tuning")

    def terms(self, batch: StepBatch) -> list[Term]:
        """Mean over answer tokens, then over retain rows."""
        return [likelihood("retain", batch.retain)] if batch.retain else []
