"""Does the model still rank the truth first among plausible answers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings
from vgid.attacks.scores import alternatives, grouped, mean_loss, rank_of_first
from vgid.data.example import Example
from vgid.models.loading import LoadedModel

YES, NO = "Yes.", "No."


class MultipleChoiceConfig(Settings):
    """`options`: how many answers there are to choose from, the truth among them."""

    options: int = Field(default=4, ge=2)


@ATTACKS.register("multiple_choice")
class MultipleChoice(Attack[MultipleChoiceConfig]):
    """Levels: which answer is likeliest; to which one the model would rather say yes. Wrong answers are made of other people's values."""

    Config = MultipleChoiceConfig
    access = "scores"
    finds = "right answers hidden behind a refusal or a lower rank"
    full: ClassVar = {"options": 5}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Questions with too few plausible answers are left out."""
        count = self.config.options - 1
        found = {row.id: [row, *alternatives(row, material.peers(row), count, material.seed)] for row in material.everything}
        groups = {id: group for id, group in found.items() if len(group) == count + 1}
        if not any(row.id in groups for row in material.forget):
            return {}
        likeliest = [[mean_loss(each) for each in group] for group in grouped(loaded, list(groups.values()), material.batch_size)]
        levels = {"likeliest": likeliest, "yes or no": self._yes(loaded, list(groups.values()), material.batch_size)}
        return {level: self._outcome(dict(zip(groups, losses, strict=True)), material) for level, losses in levels.items()}

    def _yes(self, loaded: LoadedModel, groups: Sequence[Sequence[Example]], batch_size: int) -> list[list[float]]:
        """By how much "no" is likelier than "yes", for each answer."""
        asked = [[replace(each, question=f"{each.question} Is it right that: {each.answer}") for each in group] for group in groups]
        said = [[replace(each, answer=word) for each in group for word in (YES, NO)] for group in asked]
        losses = [[mean_loss(each) for each in group] for group in grouped(loaded, said, batch_size)]
        return [[yes - no for yes, no in zip(group[::2], group[1::2], strict=True)] for group in losses]

    def _outcome(self, losses: dict[str, list[float]], material: Material) -> Outcome:
        first = {id: float(rank_of_first(group) == 1) for id, group in losses.items()}
        forget = {row.id: first[row.id] for row in material.forget if row.id in first}
        control = {row.id: first[row.id] for row in material.retain if row.id in first}
        return Outcome(forget, control, chance=1 / self.config.options)
