r"""Gradient difference (arXiv 2203.12817; TOFU, arXiv 2401.06121), on answer tokens only:

.. math:: L = -\ell(x_f, y) + \lambda \ell(x_r, y)
"""

from __future__ import annotations

from typing import ClassVar

from vgid.methods.base import METHODS, Defaults, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig, likelihood
from vgid.methods.engine import Term


@METHODS.register("grad_diff")
class GradDiff(ForgetAndRetain[RetainConfig]):
    """Ascend on the forget set, descend on the retain set."""

    Config = RetainConfig
    paper = "2401.06121"
    needs: ClassVar[tuple[str, ...]] = ("retain data",)
    forget_uses_base = False
    defaults: ClassVar[Defaults] = {"training.learning_rate": 2e-5}
    search: ClassVar[Search] = {"training.learning_rate": Range(1e-4, 5e-3, log=True), "method.retain_weight": Range(0.5, 8.0, log=True)}

    def forget(self, batch: StepBatch) -> Term:
        """Minus the likelihood loss."""
        return likelihood("forget", batch.forget, sign=-1.0)
