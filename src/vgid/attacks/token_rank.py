"""Check how high the true value ranks among plausible values once the answer has begun."""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

from pydantic import Field

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings
from vgid.attacks.ranking import ranked
from vgid.attacks.scores import alternatives, grouped, rank_of_first, value_loss
from vgid.models.loading import LoadedModel

FEWEST = 3
"""Least number of values for each rank that counts as found: with fewer, guessing is right too often for a useful share."""


class TokenRankConfig(Settings):
    """Settings of the attack.

    Attributes:
        top: lowest rank that counts as found.
        values: largest number of wrong values that the true one is compared with.
    """

    top: int = Field(default=2, ge=1)
    values: int = Field(default=11, ge=2)


@ATTACKS.register("token_rank")
class TokenRank(Attack[TokenRankConfig]):
    """Compare the likelihood of the tokens of the value alone, behind the true beginning of the answer.

    For few people the score is the share of the decoys that the true value beats.
    """

    Config = TokenRankConfig
    access = "scores"
    finds = "right answers kept at rank 2"
    tries = "Looking at which words it finds likeliest in place of the fact"
    full: ClassVar = {"values": 31}
    most = 0.15
    position = 90

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level; questions with too few plausible values are skipped. Chance is the mean of `top` over the number of values."""
        if material.by_facts:
            return {"rank": ranked(loaded, material, value_loss, self.config.values + 1)}
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
