r"""Direct preference optimisation (DPO; Rafailov et al., arXiv 2305.18290), a refusal preferred to the forgotten answer:

.. math:: L = -E_f[\log \sigma(\beta \log \frac{p(refusal)}{p_0(refusal)} - \beta \log \frac{p(y)}{p_0(y)})] + \lambda \ell(x_r, y)

Unlearning scripts often multiply it by 2 / beta, as NPO is; here it is the paper's own. `retain_weight: 0` leaves the retain term out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from vgid.methods.base import METHODS, Range, Search, StepBatch, mean_by_shape
from vgid.methods.refusals import RefusalConfig
from vgid.methods.terms import Examples, ForgetAndRetain, base_logits, log_likelihood
from vgid.models.forward import answer_logits
from vgid.training.losses import dpo


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
            pairs = [self._both(model, examples, answers) for answers in ([said[e.id] for e in examples], None)]
            (chosen, chosen0), (rejected, rejected0) = pairs
            return dpo(chosen, chosen0, rejected, rejected0, self.config.beta).mean()

        return mean_by_shape(term, batch.forget)

    def _both(self, model: Any, examples: Examples, answers: list[str] | None) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the answers by the model and by the base."""
        batch = self.context.batch(examples, answers)
        return log_likelihood(answer_logits(model, batch), batch), log_likelihood(base_logits(model, self.context, batch), batch)
