"""How high does the true value stand among plausible ones, once the answer has begun?"""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

from pydantic import Field

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings
from vgid.attacks.scores import alternatives, grouped, rank_of_first, value_loss
from vgid.models.loading import LoadedModel

FEWEST = 3
"""For each place that counts there must be so many values to choose from."""


class TokenRankConfig(Settings):
    """`top`: places that count as found; `values`: plausible values the true one is compared with, at most."""

    top: int = Field(default=2, ge=1)
    values: int = Field(default=11, ge=2)


@ATTACKS.register("token_rank")
class TokenRank(Attack[TokenRankConfig]):
    """The likelihood of the tokens of the value alone, behind the true beginning of the answer."""

    Config = TokenRankConfig
    access = "scores"
    finds = "right answers kept at rank 2"
    full: ClassVar = {"values": 31}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Questions with too few plausible values are left out; guessing is right `top` times in as many as there are values."""
        values, top = self.config.values, self.config.top
        found = {row.id: [row, *alternatives(row, material.peers(row), values, material.seed)] for row in material.everything}
        groups = {id: group for id, group in found.items() if len(group) >= FEWEST * top}
        scored = grouped(loaded, list(groups.values()), material.batch_size)
        hits = {id: float(rank_of_first(value_loss(group)) <= top) for id, group in zip(groups, scored, strict=True)}
        forget = {row.id: hits[row.id] for row in material.forget if row.id in hits}
        if not forget:
            return {}
        chance = fmean(top / len(groups[id]) for id in forget)
        return {f"rank {top}": Outcome(forget, {row.id: hits[row.id] for row in material.retain if row.id in hits}, chance)}
