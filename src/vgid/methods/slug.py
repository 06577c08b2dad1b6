r"""SLUG: single layer unlearning gradient (Cai, Tan and Asif, arXiv 2407.11867). One layer, one gradient, one step.

.. math:: importance(l) = \|\nabla_l \ell_f\| / \|\theta_l\|, \quad alignment(l) = |\cos(\nabla_l \ell_f, \nabla_l \ell_r)|

Layers that no other layer beats in both (more important to the forget set, less aligned with the retain set) are candidates. Each is
tried alone: :math:`\theta_l \leftarrow \theta_l + \lambda \nabla_l \ell_f`, with the smallest lambda that forgets, found by doubling and
then bisection. The candidate that keeps most of the retain set wins.

The paper edits CLIP by its contrastive loss, puts the edited encoder into LLaVA and looks at accuracy. Here gradients are those of the
answers' likelihood through the whole model, of the vision tower unless `parts` says otherwise, and forgetting and keeping are measured by
the geometric mean of the probabilities of the recorded answers' tokens, compared with the same before the edit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from vgid.data.example import Example
from vgid.errors import RunError
from vgid.losses import answer_nll
from vgid.methods.base import METHODS, Context, Method, MethodConfig, Range, Search
from vgid.methods.common.neurons import check_finite, sample
from vgid.methods.common.sight import require_pictures, with_pictures
from vgid.methods.common.terms import nll
from vgid.models.forward import answer_logits
from vgid.models.structure import inspect_model
from vgid.seeds import derive_seed
from vgid.settings import Part

log = logging.getLogger("vgid")
AT_ONCE = 8
"""Rows in one pass."""
DOUBLINGS = 30
"""Doublings of the step until the answers are forgotten; the first step changes a layer by a thousandth of its norm."""


class SLUGConfig(MethodConfig):
    """Settings of SLUG.

    Attributes:
        parts: parts of the model whose weight matrices are candidates.
        target: the geometric mean of the forgotten answers' token probabilities must fall to this share of what it was.
        candidates: layers to try, at most; the most important ones come first.
        search_steps: bisections of the step.
        rows: rows of each set, drawn by the seed, for gradients and probabilities, at most.
    """

    parts: tuple[Part, ...] = Field(default=("vision",), min_length=1)
    target: float = Field(default=0.1, gt=0.0, lt=1.0)
    candidates: int = Field(default=5, ge=1)
    search_steps: int = Field(default=6, ge=0)
    rows: int = Field(default=64, ge=1)


class Step(NamedTuple):
    """The smallest step of a layer that forgets.

    Attributes:
        layer: name of the weight.
        size: lambda.
        kept: the same geometric mean on the retain set, as a share of what it was.
    """

    layer: str
    size: float
    kept: float


def pareto_front(importance: Sequence[float], alignment: Sequence[float]) -> list[int]:
    """Places that no other place beats in both: more important and less aligned; the most important first."""
    order = sorted(range(len(importance)), key=lambda i: (-importance[i], alignment[i]))
    front: list[int] = []
    for place in order:
        if not front or alignment[place] < alignment[front[-1]]:
            front.append(place)
    return front


@METHODS.register("slug")
class SLUG(Method[SLUGConfig]):
    """Take one step along the forget gradient in the one layer that matters most to it and least to the retain set."""

    Config = SLUGConfig
    kind = "edit"
    paper = "2407.11867"
    needs = ("retain data", "gradients of all candidate weights")
    trains = False
    search: ClassVar[Search] = {
        "method.parts": (("vision",), ("vision", "projector"), ("language",)),
        "method.target": Range(0.02, 0.7, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Find the layer and the step, and take it.

        Raises:
            DataError: retain data is missing, or nothing that is asked depends on what may be edited.
            RunError: no candidate forgets, or there is none.
        """
        super().prepare(model, context)
        context.require_retain("slug")
        if "language" not in self.config.parts:
            require_pictures("slug", context)
        forget, retain = (self._rows(name) for name in ("forget", "retain"))
        weights = self._weights(model)
        slopes = [self._gradients(model, rows, weights) for rows in (forget, retain)]
        used = [name for name in weights if float(slopes[0][name].norm()) > 0]
        importance = [float(slopes[0][name].norm() / weights[name].detach().norm().clamp(min=1e-12)) for name in used]
        alignment = [abs(float(torch.cosine_similarity(slopes[0][name].flatten(), slopes[1][name].flatten(), dim=0))) for name in used]
        check_finite(torch.tensor([*importance, *alignment]))
        front = [used[place] for place in pareto_front(importance, alignment)][: self.config.candidates]
        before = [self.probability(model, rows) for rows in (forget, retain)]
        tried = [self._smallest(model, name, weights[name], slopes[0][name], (forget, retain), before) for name in front]
        found = [step for step in tried if step is not None]
        if not found:
            raise RunError(
                "no single layer forgets",
                expected=f"one of {len(front)} layers whose step lowers the answers' probability to {self.config.target} of what it was",
                got="none",
                fix="raise method.target or method.candidates, or take other method.parts",
            )
        self.chosen = max(found, key=lambda step: step.kept)
        with torch.no_grad():
            weights[self.chosen.layer].add_(slopes[0][self.chosen.layer], alpha=self.chosen.size)
        model.requires_grad_(True)
        log.info("one step in %s; %.0f %% of the retain set's probability is kept", self.chosen.layer, 100 * self.chosen.kept)

    def _rows(self, name: str) -> tuple[Example, ...]:
        rows = self.context.forget if name == "forget" else self.context.retain
        # The tower has no gradient from rows that show it nothing; a retain set without pictures is still looked at.
        seen = rows if "language" in self.config.parts else with_pictures(rows) or rows
        return tuple(sample(seen, self.config.rows, derive_seed(self.context.seed, "slug", name)))

    def _weights(self, model: Any) -> dict[str, nn.Parameter]:
        """Matrices of the parts, without embeddings and the head."""
        structure = inspect_model(model)
        outside = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None}
        named = model.named_parameters()
        return {n: p for n, p in named if p.ndim >= 2 and structure.part_of(n) in self.config.parts and id(p) not in outside}

    def _gradients(self, model: Any, rows: Sequence[Example], weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """Gradients of the mean likelihood loss, a few rows after the others."""
        model.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for start in range(0, len(rows), AT_ONCE):
            part = tuple(rows[start : start + AT_ONCE])
            loss = nll(model, self.context, part) * (len(part) / len(rows))
            if not loss.requires_grad:
                continue
            for sum_, slope in zip(total.values(), torch.autograd.grad(loss, list(weights.values()), allow_unused=True), strict=True):
                if slope is not None:
                    sum_ += slope
        return total

    @torch.no_grad()
    def probability(self, model: Any, rows: Sequence[Example]) -> float:
        """Geometric mean of the probabilities of all tokens of the recorded answers."""
        found = []
        for seen in (True, False):
            alike = [row for row in rows if bool(row.images) is seen]
            for start in range(0, len(alike), AT_ONCE):
                batch = self.context.batch(alike[start : start + AT_ONCE])
                found.append(-answer_nll(answer_logits(model, batch), batch.answers.targets))
        return float(torch.cat(found).mean().exp())

    @torch.no_grad()
    def _smallest(
        self,
        model: Any,
        name: str,
        weight: nn.Parameter,
        slope: Tensor,
        sets: tuple[Sequence[Example], Sequence[Example]],
        before: list[float],
    ) -> Step | None:
        """The smallest step of one layer that forgets; the layer is left as it was."""
        kept = weight.detach().clone()

        def forgets(size: float) -> bool:
            weight.copy_(kept + size * slope)
            return self.probability(model, sets[0]) <= self.config.target * before[0]

        try:
            high = 1e-3 * float(kept.norm() / slope.norm())
            low = 0.0
            for _ in range(DOUBLINGS):
                if forgets(high):
                    break
                low, high = high, 2 * high
            else:
                return None
            for _ in range(self.config.search_steps):
                middle = (low + high) / 2
                low, high = (low, middle) if forgets(middle) else (middle, high)
            weight.copy_(kept + high * slope)
            return Step(name, high, self.probability(model, sets[1]) / max(before[1], 1e-12))
        finally:
            weight.copy_(kept)
