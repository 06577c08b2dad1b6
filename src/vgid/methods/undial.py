r"""UNDIAL (Dong et al., arXiv 2402.10052): self-distillation with the answer's own tokens held down.

.. math:: L = E_f[mean_t CE(softmax(z_0 - \gamma 1[v = y_t]), p)] + \lambda \ell(x_r, y)

The paper trains on the forget set alone (`retain_weight: 0`); some re-implementations put its weight on the retain term. Here the
strength gamma belongs to the forget term and lambda to the retain term.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from vgid.losses import undial
from vgid.methods.base import METHODS, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig
from vgid.methods.engine import Ask, Said, Term


class UNDIALConfig(RetainConfig):
    """Settings of UNDIAL.

    Attributes:
        strength: gamma, by how much the answer's token is held down, in logits.
    """

    strength: float = Field(default=10.0, ge=0.0)


@METHODS.register("undial")
class UNDIAL(ForgetAndRetain[UNDIALConfig]):
    """Distil the base into itself, less what it must forget."""

    Config = UNDIALConfig
    paper = "2402.10052"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.strength": Range(3.0, 30.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def forget(self, batch: StepBatch) -> Term:
        """Mean over answer tokens, then over forget rows."""

        def value(said: Said, before: Said) -> Tensor:
            return said.mean(undial(before.logits, said.logits, said.targets, self.config.strength))

        return Term("forget", batch.forget, (Ask("model"), self.base), value)
