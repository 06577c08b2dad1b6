"""Retraining, the gold reference: the base *before* it learned anything about the forget set, fine-tuned on the retain set only."""

from __future__ import annotations

from typing import ClassVar

from vgid.methods.base import METHODS, Settings
from vgid.methods.finetune import Finetune


@METHODS.register("retrain")
class Retrain(Finetune):
    """Cross-entropy on the retain set, from a base that never met the forget set."""

    kind = "reference"
    needs = ("retain data", "the base before memorisation")
    defaults: ClassVar[Settings] = {"adapter": None, "validation.every": 0}
