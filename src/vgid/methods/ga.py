r"""Gradient ascent (GA; Maini et al., TOFU, arXiv 2401.06121), on answer tokens only:

.. math:: L = -\ell(x_f, y)

Nothing bounds it from below, so it ends in gibberish if it is not stopped: a reference for collapse.
"""

from __future__ import annotations

from typing import ClassVar

from vgid.methods.base import METHODS, Defaults, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.terms import likelihood
from vgid.methods.engine import Term


class GAConfig(MethodConfig):
    """Gradient ascent has no settings of its own."""


@METHODS.register("ga")
class GA(Method[GAConfig]):
    """Ascend the likelihood loss of the forgotten answers."""

    Config = GAConfig
    paper = "2401.06121"
    defaults: ClassVar[Defaults] = {"training.learning_rate": 2e-5}
    search: ClassVar[Search] = {"training.learning_rate": Range(1e-5, 1e-3, log=True)}

    @property
    def needs_reference(self) -> bool:
        """The loss does not use the base."""
        return False

    def terms(self, batch: StepBatch) -> list[Term]:
        """Minus the mean negative log-likelihood of the forget rows; retain rows are not used."""
        return [likelihood("forget", batch.forget, sign=-1.0)] if batch.forget else []
