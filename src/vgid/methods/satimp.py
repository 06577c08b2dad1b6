r"""SatImp (Yang et al., arXiv 2505.11953): gradient ascent, weighted by saturation and importance.

.. math:: L = E_f[mean_t\, p(y_t)^{\beta_1} (1 - p(y_t))^{\beta_2} \log p(y_t)] + \lambda \ell(x_r, y)

Tokens that are unlikely already, and tokens that are certain whoever is asked about, weigh less. Weights are constants of the step. The
paper's experiments weigh the forget term ten times as much as the retain term, hence lambda = 0.1. The mean is taken over an answer's
tokens and then over rows; the authors' script takes it over all tokens of a batch.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import satimp
from vgid.methods.base import METHODS, Defaults, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig
from vgid.methods.engine import Ask, Said, Term


class SatImpConfig(RetainConfig):
    """Settings of SatImp.

    Attributes:
        saturation: beta_1, how much less a token weighs that is unlikely already.
        importance: beta_2, how much less a token weighs that is certain.
    """

    retain_weight: float = Field(default=0.1, ge=0.0)
    saturation: float = Field(default=5.0, ge=0.0)
    importance: float = Field(default=1.0, ge=0.0)


@METHODS.register("satimp")
class SatImp(ForgetAndRetain[SatImpConfig]):
    """Ascend on the forget set, hardest at tokens that are neither forgotten yet nor a matter of course."""

    Config = SatImpConfig
    paper = "2505.11953"
    needs = ("retain data",)
    forget_uses_base = False
    defaults: ClassVar[Defaults] = {"training.learning_rate": 1e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.saturation": Range(0.5, 8.0, log=True),
        "method.importance": Range(0.1, 2.0, log=True),
        "method.retain_weight": Range(0.05, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """Weighted log-probabilities, to be lowered."""

        def value(said: Said) -> Tensor:
            return said.mean(satimp(said.logits, said.targets, self.config.saturation, self.config.importance))

        return Term("forget", batch.forget, (Ask("model"),), value)
