r"""Negative preference optimisation (NPO; Zhang et al., arXiv 2404.05868):

.. math:: L = -\frac{2}{\beta} E_f[\log \sigma(-\beta \log \frac{p(y|x_f)}{p_0(y|x_f)})] + \lambda \ell(x_r, y)

Probabilities are those of whole answers, so log-probabilities are summed over tokens. `retain_weight: 0` is the paper's plain NPO.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import npo
from vgid.methods.base import METHODS, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig, answer_log_likelihood
from vgid.methods.engine import Ask, Said, Term


class NPOConfig(RetainConfig):
    """Settings of NPO.

    Attributes:
        beta: inverse temperature; towards 0 NPO becomes gradient ascent.
    """

    beta: float = Field(default=0.1, gt=0.0)


@METHODS.register("npo")
class NPO(ForgetAndRetain[NPOConfig]):
    """Make the forgotten answers less likely than the base finds them, less and less eagerly."""

    Config = NPOConfig
    paper = "2404.05868"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 2e-3, log=True),
        "method.beta": Range(0.05, 1.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """The NPO loss of each forget row."""

        def value(said: Said, before: Said) -> Tensor:
            return npo(answer_log_likelihood(said), answer_log_likelihood(said._replace(logits=before.logits)), self.config.beta)

        return Term("forget", batch.forget, (Ask("model"), self.base), value)
