r"""Direct preference optimisation (DPO; Rafailov et al., arXiv 2305.18290), a refusal preferred to the forgotten answer:

.. math:: L = -E_f[\log \sigma(\beta \log \frac{p(refusal)}{p_0(refusal)} - \beta \log \frac{p(y)}{p_0(y)})] + \lambda \ell(x_r, y)

Unlearning scripts often multiply it by 2 / beta, as NPO is; here it is the paper's own. `retain_weight: 0` leaves the retain term out.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import dpo
from vgid.methods.base import METHODS, Range, Search, StepBatch
from vgid.methods.common.refusals import RefusalConfig
from vgid.methods.common.terms import ForgetAndRetain, answer_log_likelihood
from vgid.methods.engine import Ask, Said, Term


class DPOConfig(RefusalConfig):
    """Settings of DPO.

    Attributes:
        beta: inverse temperature.
    """

    beta: float = Field(default=0.1, gt=0.0)


@METHODS.register("dpo")
class DPO(ForgetAndRetain[DPOConfig]):
    """Prefer a refusal to the forgotten answer."""

    Config = DPOConfig
    paper = "2305.18290"
    needs = ("retain data", "refusals (built in)", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 2e-3, log=True),
        "method.beta": Range(0.05, 1.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """The DPO loss of each forget row."""
        refusals = tuple(self.config.refuse(batch.forget, self.context.seed, batch.step))

        def value(refused: Said, refused0: Said, recorded: Said, recorded0: Said) -> Tensor:
            # Outputs that are kept have no owners of their own: they are those of the model at the same answers.
            chosen, rejected = (answer_log_likelihood(said) for said in (refused, recorded))
            chosen0 = answer_log_likelihood(refused._replace(logits=refused0.logits))
            rejected0 = answer_log_likelihood(recorded._replace(logits=recorded0.logits))
            return dpo(chosen, chosen0, rejected, rejected0, beta=self.config.beta)

        return Term("forget", batch.forget, (Ask("model", refusals), Ask("base", refusals), Ask("model"), self.base), value)
