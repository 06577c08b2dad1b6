r"""MANU: modality-aware neuron unlearning (Liu et al., arXiv 2502.15910), by pruning alone.

Each set is shown to the model with its pictures (multi) and without (text). A neuron's importance for a set is the sum of

.. math::
    I_{abs} &= |\bar z_m - \bar z_t| / (\bar z_m + \bar z_t + \epsilon), \quad \bar z = mean |z| \\
    I_{freq} &= |n_m - n_t| / (n_m + n_t + \epsilon), \quad n = share\ of\ |z| > threshold \\
    I_{var} &= \sqrt{Var_m(z) + Var_t(z)} \\
    I_{rms} &= \sqrt{|q_m - q_t| / (q_m + q_t + \epsilon)}, \quad q = mean\ z^2

and the neurons with the largest ratio I(forget) / (I(retain) + epsilon) are pruned, a share of the language model's and of the
vision tower's. z is a neuron of a feed-forward block: the language model's where answers are predicted, the vision tower's at all
patches, which have no text side. Counts and sums of the paper are shares and means here, as the two sides need not be alike in number.
The released code sums up other terms, without the comparison of modalities and with the frequency switched off, and prunes the last
layers only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.example import Example, altered
from vgid.errors import RunError
from vgid.methods.base import METHODS, Context, Method, MethodConfig, Range, Search
from vgid.methods.common.neurons import at_answers, check_finite, sample, silence, watched
from vgid.models.forward import answer_logits
from vgid.models.structure import MLP, feed_forward
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")
EPSILON = 1e-8
BATCH = 16


class MANUConfig(MethodConfig):
    """Settings of MANU.

    Attributes:
        share: of the neurons of each part, how many are pruned.
        threshold: from where on a neuron counts as active.
        parts: where neurons are pruned.
        rows: rows of each set, drawn by the seed, on which activations are measured, at most.
    """

    share: float = Field(default=0.05, gt=0.0, lt=1.0)
    threshold: float = Field(default=0.1, ge=0.0)
    parts: tuple[Literal["language", "vision"], ...] = Field(default=("language", "vision"), min_length=1)
    rows: int = Field(default=512, ge=1)


class Moments(NamedTuple):
    """Means over tokens of |z|, 1[|z| > threshold], z and z^2, in the rows of `means` `[4, m]`; and how many tokens there were."""

    means: Tensor
    tokens: int

    @classmethod
    def of(cls, z: Tensor, threshold: float) -> Moments:
        """Moments of activations `[tokens, m]`; a neuron is active above the threshold."""
        z = z.double()
        return cls(torch.stack([z.abs(), (z.abs() > threshold).double(), z, z.square()]).mean(dim=1), len(z))

    def joined(self, other: Moments) -> Moments:
        """Over the tokens of both."""
        total = self.tokens + other.tokens
        return Moments((self.means * self.tokens + other.means * other.tokens) / total, total)


def importance(multi: Moments | None, text: Moments | None) -> Tensor | None:
    """I_abs + I_freq + I_var + I_rms of a block's neurons, `[m]`; a side that never ran counts as silent, None if neither did."""
    ran = multi or text
    if ran is None:
        return None
    m, t = (torch.zeros_like(ran.means) if side is None else side.means for side in (multi, text))
    magnitude, active, _, square = (m - t).abs() / (m + t + EPSILON)
    variance = (m[3] - m[2].square() + t[3] - t[2].square()).clamp(min=0.0)
    return torch.stack([magnitude, active, variance.sqrt(), square.sqrt()]).sum(dim=0)


def choose(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """The places of the highest scores in each block, so large a share of all blocks together."""
    if not scores:
        return []
    flat = check_finite(torch.cat(list(scores)))
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    return [mask.nonzero().flatten() for mask in chosen.split([len(each) for each in scores])]


@METHODS.register("manu")
class MANU(Method[MANUConfig]):
    """Prune the neurons that tell modalities apart on the forget set more than on the retain set."""

    Config = MANUConfig
    kind = "edit"
    paper = "2502.15910"
    needs = ("retain data",)
    trains = False
    search: ClassVar[Search] = {
        "method.share": Range(0.02, 0.5, log=True),
        "method.parts": (("language", "vision"), ("language",), ("vision",)),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Look at both sets and prune.

        Raises:
            DataError: retain data is missing.
            RunError: there is nothing to prune.
        """
        super().prepare(model, context)
        context.require_retain("manu")
        blocks = feed_forward(model, self.config.parts)
        forget, retain = (self.importances(model, blocks, rows) for rows in self._sets())
        # The tower of a model that was shown no picture never ran: nothing is known of its neurons.
        scores = {i: f / (r + EPSILON) for i, (f, r) in enumerate(zip(forget, retain, strict=True)) if f is not None and r is not None}
        self.pruned: dict[str, Tensor] = {}
        for part in self.config.parts:
            ran = [i for i in scores if blocks[i].part == part]
            chosen = choose([scores[i] for i in ran], self.config.share)
            self.pruned |= {blocks[i].name: neurons for i, neurons in zip(ran, chosen, strict=True)}
            self._report(part, sum(map(len, chosen)), sum(blocks[i].width for i in ran))
        for block in blocks:
            if block.name in self.pruned:
                silence(block, self.pruned[block.name])

    def _report(self, part: str, count: int, total: int) -> None:
        if total and not count:
            raise RunError(
                f"no neuron of the {part} part was chosen to be pruned",
                expected="at least one",
                got=f"a share of {self.config.share} of {total} neurons",
                fix="raise method.share",
            )
        log.info("pruning %d of %d neurons in the %s part", count, total, part)

    def _sets(self) -> list[list[Example]]:
        sets = (("forget", self.context.forget), ("retain", self.context.retain))
        return [sample(rows, self.config.rows, derive_seed(self.context.seed, "manu", name)) for name, rows in sets]

    def importances(self, model: Any, blocks: Sequence[MLP], rows: Sequence[Example]) -> list[Tensor | None]:
        """Measure the importance of all neurons for one set.

        Args:
            model: the model.
            blocks: feed-forward blocks.
            rows: rows of the set; those with pictures are compared with the same rows without.

        Returns:
            For each block the importance of its neurons, `[m]`; None for a block that never ran.
        """
        multi = self.moments(model, blocks, [row for row in rows if row.images])
        text = self.moments(model, blocks, [altered(row, images=()) for row in rows])
        return [importance(m, t) for m, t in zip(multi, text, strict=True)]

    @torch.no_grad()
    def moments(self, model: Any, blocks: Sequence[MLP], rows: Sequence[Example]) -> list[Moments | None]:
        """Measure the activations of each block's neurons.

        Args:
            model: the model.
            blocks: feed-forward blocks.
            rows: rows to run.

        Returns:
            Moments over tokens for each block; None for a block that never ran.
        """
        found: list[Moments | None] = [None] * len(blocks)
        for start in range(0, len(rows), BATCH):
            batch = self.context.encoder.batch(rows[start : start + BATCH]).to(self.context.device)

            def see(place: int, neurons: Tensor) -> None:
                seen = Moments.of(at_answers(blocks[place], batch, neurons), self.config.threshold)  # noqa: B023
                before = found[place]
                found[place] = seen if before is None else before.joined(seen)

            with watched(blocks, see):
                answer_logits(model, batch)
        return found
