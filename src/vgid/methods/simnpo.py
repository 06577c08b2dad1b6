r"""SimNPO (Fan et al., arXiv 2410.07163): NPO without a reference, normalised by the answer's length.

.. math:: L = -\frac{2}{\beta} E_f[\log \sigma(-\frac{\beta}{|y|} \log p(y|x_f) - \gamma)] + \lambda \ell(x_r, y)
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import answer_nll, simnpo
from vgid.methods.base import METHODS, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig
from vgid.methods.engine import Ask, Said, Term


class SimNPOConfig(RetainConfig):
    """Settings of SimNPO.

    Attributes:
        beta: inverse temperature.
        margin: gamma, how unlikely an answer must be to count as forgotten.
    """

    beta: float = Field(default=2.5, gt=0.0)
    margin: float = Field(default=0.0, ge=0.0)


@METHODS.register("simnpo")
class SimNPO(ForgetAndRetain[SimNPOConfig]):
    """Make the forgotten answers unlikely, the likely ones first."""

    Config = SimNPOConfig
    paper = "2410.07163"
    needs = ("retain data",)
    forget_uses_base = False
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 2e-3, log=True),
        "method.beta": Range(0.5, 5.0, log=True),
        "method.margin": Range(0.0, 2.0),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """The SimNPO loss of each forget row."""

        def value(said: Said) -> Tensor:
            return simnpo(-said.mean(answer_nll(said.logits, said.targets)), self.config.beta, self.config.margin)

        return Term("forget", batch.forget, (Ask("model"),), value)
