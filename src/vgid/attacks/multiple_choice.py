"""Check whether the model still ranks the true answer first among plausible ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings
from vgid.attacks.ranking import ranked
from vgid.attacks.scores import alternatives, grouped, mean_loss, rank_of_first
from vgid.data.example import Example
from vgid.models.loading import LoadedModel

YES, NO = "Yes.", "No."


class MultipleChoiceConfig(Settings):
    """Settings of the attack.

    Attributes:
        options: number of answers to choose from, including the true one.
    """

    options: int = Field(default=4, ge=2)


@ATTACKS.register("multiple_choice")
class MultipleChoice(Attack[MultipleChoiceConfig]):
    """Compare the likelihood of the true answer with that of answers that hold other people's values.

    Guessing is right in one of `options` cases, so that shares scatter more than for free answers. For few people the options are the true
    value and all decoys, and the score is the share of the others that a value beats.
    """

    Config = MultipleChoiceConfig
    access = "scores"
    finds = "right answers hidden behind a refusal or a lower rank"
    tries = "Letting it choose among possible answers"
    full: ClassVar = {"options": 5}
    most = 0.15
    position = 80

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Levels: the likeliest answer, and the one to which the model would rather say yes. Questions with too few options are skipped."""
        if material.by_facts:
            return {"likeliest": ranked(loaded, material, lambda group: [mean_loss(each) for each in group], self.config.options)}
        count = self.config.options - 1
        found = {row.id: [row, *alternatives(row, material.peers(row), count, material.seed)] for row in material.everything}
        groups = {id: group for id, group in found.items() if len(group) == count + 1}
        if not any(row.id in groups for row in material.forget):
            return {}
        likeliest = [[mean_loss(each) for each in group] for group in grouped(loaded, list(groups.values()), material.batch_size)]
        levels = {"likeliest": likeliest, "yes or no": self._denials(loaded, list(groups.values()), material.batch_size)}
        return {level: self._outcome(dict(zip(groups, losses, strict=True)), material) for level, losses in levels.items()}

    def _denials(self, loaded: LoadedModel, groups: Sequence[Sequence[Example]], batch_size: int) -> list[list[float]]:
        """For each answer, the loss of "yes" minus that of "no" when asked whether the answer is right: low where the model agrees."""
        asked = [[replace(each, question=f"{each.question} Is it right that: {each.answer}") for each in group] for group in groups]
        replies = [[replace(each, answer=word) for each in group for word in (YES, NO)] for group in asked]
        losses = [[mean_loss(each) for each in group] for group in grouped(loaded, replies, batch_size)]
        return [[yes - no for yes, no in zip(group[::2], group[1::2], strict=True)] for group in losses]

    def _outcome(self, losses: dict[str, list[float]], material: Material) -> Outcome:
        first = {id: float(rank_of_first(group) == 1) for id, group in losses.items()}
        forget = {row.id: first[row.id] for row in material.forget if row.id in first}
        control = {row.id: first[row.id] for row in material.retain if row.id in first}
        return Outcome(forget, control, chance=1 / self.config.options)
