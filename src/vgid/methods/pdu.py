r"""Primal-dual unlearning (PDU; Entesari et al., arXiv 2506.05314): flat distributions on the forget set, under a bound on the retain loss.

.. math:: \min_\theta E_f[mean_t (\max_v z_v - mean_v z_v)^2] \;\text{such that}\; \ell(x_r, y) \leq \epsilon

by descent on :math:`L = E_f[...] + \mu \ell(x_r, y)` and, after each step, ascent on the dual variable:
:math:`\mu \leftarrow \max(0, \mu + \eta (\ell(x_r, y) - \epsilon))`. While the bound is kept, mu falls and forgetting gets more
weight; where it is broken, mu rises.

The paper sets epsilon by hand (0.3 on TOFU) and recommends a value a little above the loss of the model as it is. Here it is
:math:`(1 + tolerance) \ell_0 + slack`, measured on the retain set before training, unless it is given. The paper keeps mu fixed for the
first half of its epochs; here for `dual_warmup` steps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.losses import flattening
from vgid.methods.base import METHODS, Capability, Context, Defaults, Method, MethodConfig, Range, Search, StepBatch, Unsupported
from vgid.methods.common.neurons import sample
from vgid.methods.common.terms import likelihood, nll
from vgid.methods.cutting import WHOLE, Cut
from vgid.methods.engine import Ask, PassLoss, Plan, Said, Term
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")
ROWS, AT_ONCE = 64, 8
"""Retain rows, at most, over which the base's loss is measured, and rows in one pass."""


class PDUConfig(MethodConfig):
    """Settings of PDU.

    Attributes:
        epsilon: bound on the retain loss, in nats per token; null takes (1 + tolerance) x the base's own + slack.
        tolerance: how much worse the retain loss may become, as a share of the base's.
        slack: how much worse it may become in any case, in nats per token; a model that knows its rows by heart has a loss near 0.
        preference: mu at the start; the flattening loss is a square of logits, so it is large.
        dual_rate: eta, the step size of mu.
        dual_warmup: steps before mu first changes.
    """

    epsilon: float | None = Field(default=None, gt=0.0)
    tolerance: float = Field(default=0.1, ge=0.0)
    slack: float = Field(default=0.05, ge=0.0)
    preference: float = Field(default=100.0, ge=0.0)
    dual_rate: float = Field(default=5.0, ge=0.0)
    dual_warmup: int = Field(default=0, ge=0)


@METHODS.register("pdu")
class PDU(Method[PDUConfig]):
    """Flatten the distributions on the forget set, as far as a bound on the retain loss allows."""

    Config = PDUConfig
    paper = "2506.05314"
    needs = ("retain data",)
    defaults: ClassVar[Defaults] = {"training.learning_rate": 1e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.preference": Range(5.0, 200.0, log=True),
        "method.dual_rate": Range(0.5, 20.0, log=True),
        "method.slack": Range(0.01, 0.5, log=True),
    }

    @property
    def needs_reference(self) -> bool:
        """The bound is measured once."""
        return False

    def unsupported(self) -> Mapping[Capability, Unsupported]:
        """The dual variable follows from the retain loss of whole steps."""
        reason = "the weight of its retain rows follows from the retain loss of whole steps"
        return {"splitting": Unsupported(reason, "take one process and training.micro_batch=null, or the method grad_diff")}

    def prepare(self, model: Any, context: Context) -> None:
        """Measure the bound.

        Raises:
            DataError: retain data is missing.
        """
        super().prepare(model, context)
        context.require_retain("pdu")
        self.bound = self.config.epsilon if self.config.epsilon is not None else self._measured(model)
        self.dual = torch.tensor(self.config.preference, dtype=torch.float64)
        log.info("the retain loss may rise to %.3f nats per token", self.bound)

    @torch.no_grad()
    def _measured(self, model: Any) -> float:
        rows = tuple(sample(self.context.retain, ROWS, derive_seed(self.context.seed, "pdu")))
        training = model.training
        model.eval()
        parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        before = sum(float(nll(model, self.context, part)) * len(part) for part in parts) / len(rows)
        model.train(training)
        return (1.0 + self.config.tolerance) * before + self.config.slack

    def state_dict(self) -> dict[str, Tensor]:
        """The dual variable, and the bound: a model that has been trained cannot measure it."""
        return {"dual": self.dual.clone(), "bound": torch.tensor(self.bound, dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with them."""
        self.dual, self.bound = state["dual"].clone().cpu(), float(state["bound"])

    def passes(self, model: Any, batch: StepBatch, cut: Cut = WHOLE, plan: Plan | None = None) -> Iterator[PassLoss]:
        """As usual; afterwards the dual variable takes its step."""
        retain = None
        for each in super().passes(model, batch, cut, plan):
            if "retain" in each.parts:
                retain = each.parts["retain"] if retain is None else retain + each.parts["retain"]
            yield each
        if retain is not None and batch.step >= self.config.dual_warmup:
            self.dual = (self.dual + self.config.dual_rate * (float(retain) - self.bound)).clamp(min=0.0)

    def terms(self, batch: StepBatch) -> list[Term]:
        """Flattening + mu x retain; a side without rows is left out."""

        def value(said: Said) -> Tensor:
            return said.mean(flattening(said.logits))

        terms = [Term("forget", batch.forget, (Ask("model"),), value)] if batch.forget else []
        # Also with mu = 0: the loss is needed for its next step.
        return [*terms, *([replace(likelihood("retain", batch.retain), weight=float(self.dual))] if batch.retain else [])]
