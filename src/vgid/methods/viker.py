r"""ViKeR (Cai et al., arXiv 2601.22020): what the base says of irrelevant pictures is what it should say afterwards.

.. math:: L = E_f[mean_t (\lambda_t KL(\bar p_t \| p_t) + \alpha \log p(y_t))] + \lambda \ell(x_r, y), \quad
          \bar p = \frac{1}{n} \sum_i p_0(\cdot | I_i, q, y_{<t})

The distributions over n pictures that have nothing to do with the question estimate those of a model that has forgotten. The gradient of
the divergence, p - \bar p, is large at tokens that only the right picture gives away (key tokens) and small at all others. That is the
paper's reweighting of tokens, and the reason why words of grammar survive the ascent.

Irrelevant pictures are those of other subjects, from the retain set first. Where there are none, they are uniform noise. Departures:
lambda_t, alpha and n are ours, and rows without a picture get the ascent alone, since the method says nothing about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vgid.data.batching import EncodedRow
from vgid.data.example import Example, ImageRef, altered
from vgid.losses import answer_nll, kl_divergence
from vgid.methods.base import METHODS, Context, Range, Search, StepBatch
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig
from vgid.methods.engine import Ask, Said, Term, View
from vgid.perturbation import NoiseConfig, perturb_row
from vgid.seeds import derive_seed


class ViKeRConfig(RetainConfig):
    """Settings of ViKeR.

    Attributes:
        pictures: n, irrelevant pictures over which the target is averaged; drawn anew at every step.
        target_weight: lambda_t, weight of the divergence from the target.
        ascent_weight: alpha, weight of gradient ascent.
    """

    pictures: int = Field(default=4, ge=1)
    target_weight: float = Field(default=1.0, ge=0.0)
    ascent_weight: float = Field(default=0.1, ge=0.0)


def target_distribution(logits: Sequence[Tensor]) -> Tensor:
    """The mean of several distributions: logits `[n, v]` of each -> log-probabilities `[n, v]`."""
    return torch.stack([F.log_softmax(each.float(), dim=-1) for each in logits]).logsumexp(dim=0) - torch.tensor(float(len(logits))).log()


@METHODS.register("viker")
class ViKeR(ForgetAndRetain[ViKeRConfig]):
    """Ascend on the forget set, held to what the base says of irrelevant pictures."""

    Config = ViKeRConfig
    paper = "2601.22020"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.target_weight": Range(0.2, 5.0, log=True),
        "method.ascent_weight": Range(0.01, 1.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Collect irrelevant pictures."""
        super().prepare(model, context)
        self._shown = [(row.subject, row.images) for row in (*context.retain, *context.forget) if row.images]
        self._of_retain = sum(bool(row.images) for row in context.retain)

    def terms(self, batch: StepBatch) -> list[Term]:
        """Rows with pictures are compared with the target; rows without get the ascent alone."""
        terms = super().terms(batch._replace(forget=()))
        seen = tuple(row for row in batch.forget if row.images)
        read = tuple(row for row in batch.forget if not row.images)
        among = len(batch.forget)
        return [*(replace(self._forget(rows, batch.step), among=among) for rows in (seen, read) if rows), *terms]

    def _forget(self, rows: tuple[Example, ...], step: int) -> Term:
        views = [Ask("base", view=self._view(step, n)) for n in range(self.config.pictures)] if rows[0].images else []

        def value(said: Said, *irrelevant: Said) -> Tensor:
            values = -self.config.ascent_weight * answer_nll(said.logits, said.targets)
            if irrelevant:
                target = target_distribution([each.logits for each in irrelevant])
                values = values + self.config.target_weight * kl_divergence(target, said.logits)
            return said.mean(values)

        return Term("forget", rows, (Ask("model"), *views), value)

    def _view(self, step: int, number: int) -> View:
        """One irrelevant picture for each picture; questions about the same picture see the same one."""

        def encode(example: Example, answer: str) -> EncodedRow:
            seed = (self.context.seed, "viker", step, number, *(ref.fingerprint for ref in example.images))
            images = self.irrelevant(example, derive_seed(*seed))
            if images is None:
                return perturb_row(self.context.encoder, example, NoiseConfig(), seed=seed, answer=answer)
            return self.context.encoder.row(altered(example, images=images), answer=answer)

        return View(("irrelevant", step, number), encode)

    def irrelevant(self, example: Example, seed: int) -> tuple[ImageRef, ...] | None:
        """Draw pictures of another subject in place of an example's own.

        Args:
            example: a row with pictures.
            seed: random seed.

        Returns:
            As many pictures as the row has, of one other row, from the retain set where it has some; None where all show the same subject.
        """
        for rows in (self._shown[: self._of_retain], self._shown):
            others = [images for subject, images in rows if images != example.images and (subject is None or subject != example.subject)]
            if others:
                drawn = Random(seed).choice(others)
                return tuple(drawn[k % len(drawn)] for k in range(len(example.images)))
        return None
