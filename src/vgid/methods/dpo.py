r"""Direct preference optimisation (DPO; Rafailov et al., arXiv 2305.18290), a refusal preferred to the forgotten answer:

.. math:: L = -E_f[\log \sigma(\beta \log \frac{p(refusal)}{p_0(refusal)} - \beta \log \frac{p(y)}{p_0(y)})] + \lambda \ell(x_r, y)

Unlearning scripts often multiply it by 2 / beta, as NPO is; here it is the paper's own. `retain_weight: 0` leaves the retain term out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import dpo
from vgid.methods.base import METHODS, Range, Search, StepBatch, mean_by_shape
from vgid.methods.common.refusals import RefusalConfig
from vgid.methods.common.terms import Examples, ForgetAndRetain, log_likelihood
from vgid.models.adapters import reference
from vgid.models.forward import answer_logits


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

    def forget(self, model: Any, batch: StepBatch) -> Tensor:
        """Mean of the DPO loss over the forget rows."""
        said = dict(zip((e.id for e in batch.forget), self.config.refuse(batch.forget, self.context.seed, batch.step), strict=True))

        def term(examples: Examples) -> Tensor:
            refused, recorded = self.context.batch(examples, [said[e.id] for e in examples]), self.context.batch(examples)
            with reference(model, copy=self.context.reference_copy) as base:
                refused0 = answer_logits(base, refused)
            return dpo(
                chosen=log_likelihood(answer_logits(model, refused), refused),
                chosen0=log_likelihood(refused0, refused),
                rejected=log_likelihood(answer_logits(model, recorded), recorded),
                rejected0=log_likelihood(self.base_logits(model, examples), recorded),
                beta=self.config.beta,
            ).mean()

        return mean_by_shape(term, batch.forget)
