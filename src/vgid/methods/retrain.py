"""Retraining, the gold reference: the base *before* it learned anything about the forget set, fine-tuned on the retain set only."""

from __future__ import annotations

from typing import ClassVar

from vgid.methods.base import METHODS, Defaults
from vgid.methods.finetune import Finetune


@METHODS.register("retrain")
class Retrain(Finetune):
    """Cross-entropy on the retain set, from a base that never met the forget set."""

    kind = "reference"
    needs = ("retain data", "the base before memorisation")
    defaults: ClassVar[Defaults] = {"adapter": None, "training.learning_rate": 2e-5, "validation.every": 0}
