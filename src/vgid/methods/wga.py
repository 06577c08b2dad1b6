r"""Weighted gradient ascent (WGA; Wang et al., arXiv 2502.19301), which slows down where an answer has become unlikely:

.. math:: L = E_f[mean_t\, p(y_t)^\beta \log p(y_t)] + \lambda \ell(x_r, y)

The weight is a constant of the step. The mean is taken over an answer's tokens and then over rows; the authors' script takes it over all
tokens of a batch.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import wga
from vgid.methods.base import METHODS, Defaults, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig
from vgid.methods.engine import Ask, Said, Term


class WGAConfig(RetainConfig):
    """Settings of WGA.

    Attributes:
        beta: exponent of a token's probability in its weight; 0 is gradient ascent.
    """

    beta: float = Field(default=1.0, ge=0.0)


@METHODS.register("wga")
class WGA(ForgetAndRetain[WGAConfig]):
    """Ascend on the forget set, hardest at tokens that are still likely."""

    Config = WGAConfig
    paper = "2502.19301"
    needs = ("retain data",)
    forget_uses_base = False
    defaults: ClassVar[Defaults] = {"training.learning_rate": 1e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.beta": Range(0.1, 5.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """Weighted log-probabilities, to be lowered."""

        def value(said: Said) -> Tensor:
            return said.mean(wga(said.logits, said.targets, self.config.beta))

        return Term("forget", batch.forget, (Ask("model"),), value)
