r"""IDK, in TOFU "preference optimisation" (arXiv 2401.06121): learn to refuse.

.. math:: L = \ell(x_f, refusal) + \lambda \ell(x_r, y)
"""

from __future__ import annotations

from typing import ClassVar

from vgid.methods.base import METHODS, Range, Search, StepBatch
from vgid.methods.common.refusals import RefusalConfig
from vgid.methods.common.terms import ForgetAndRetain, likelihood
from vgid.methods.engine import Term


@METHODS.register("idk")
class IDK(ForgetAndRetain[RefusalConfig]):
    """Cross-entropy on a refusal in place of the forgotten answer."""

    Config = RefusalConfig
    paper = "2401.06121"
    needs = ("retain data", "refusals (built in)")
    forget_uses_base = False
    search: ClassVar[Search] = {"training.learning_rate": Range(1e-4, 5e-3, log=True), "method.retain_weight": Range(0.5, 8.0, log=True)}

    def forget(self, batch: StepBatch) -> Term:
        """Likelihood loss of refusals, drawn anew at each step."""
        return likelihood("forget", batch.forget, tuple(self.config.refuse(batch.forget, self.context.seed, batch.step)))
