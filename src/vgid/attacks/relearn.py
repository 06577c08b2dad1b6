"""Teach a little of what was forgotten: does the rest come back?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from pydantic import Field

from vgid.attacks.asking import ask
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, person, plain_copy, split_people
from vgid.config import resolve
from vgid.data.example import Example
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.progress import without_info_messages
from vgid.training.fit import fit


class Budget(Settings):
    """Of training: steps of plain fine-tuning with LoRA, `batch` rows each, at a constant learning rate."""

    steps: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    rank: int = Field(default=8, ge=1)


class RelearnConfig(Budget):
    """`shares`: of the forget rows that are taught, one level each; all are about people of whom nothing is scored."""

    shares: tuple[float, ...] = (0.1, 0.5)


@ATTACKS.register("relearn")
class Relearn(Attack[RelearnConfig]):
    """Fine-tune on rows of half of the forgotten people, and ask about the other half: the curve over budgets shows how deep it lies."""

    Config = RelearnConfig
    access = "weights"
    finds = "suppression that a few steps undo"
    full: ClassVar[dict[str, Any]] = {"shares": (0.01, 0.05, 0.1, 0.25, 0.5), "steps": 100}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """The same people are scored at every level. It needs two people, and weights that can be trained."""
        taught, scored = split_people(material.forget, 0.5, material.seed)
        if not taught or is_quantised(loaded.model):
            return {}
        shuffled = list(taught)
        Random(f"relearn/{material.seed}").shuffle(shuffled)
        levels = {}
        for share in self.config.shares:
            rows = shuffled[: max(1, round(share * len(material.forget)))]
            levels[f"{100 * share:g} %"] = relearned(loaded, rows, taught, scored, material.retain, self.config, material)
        return levels


class RelearnOtherConfig(Budget):
    """`rows`: about retained people, taught at most."""

    rows: int = Field(default=200, ge=1)


@ATTACKS.register("relearn_other")
class RelearnOther(Attack[RelearnOtherConfig]):
    """Fine-tune on rows about half of the retained people, which hold nothing that was forgotten, and ask about all forgotten ones."""

    Config = RelearnOtherConfig
    access = "weights"
    finds = "suppression that any further training undoes"
    full: ClassVar[dict[str, Any]] = {"rows": 1000, "steps": 100}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """The control is about the other half of the retained people."""
        taught, control = split_people(material.retain, 0.5, material.seed)
        if not taught or is_quantised(loaded.model):
            return {}
        return {"": relearned(loaded, taught[: self.config.rows], taught, material.forget, control, self.config, material)}


def relearned(
    loaded: LoadedModel,
    rows: Sequence[Example],
    taught: Sequence[Example],
    scored: Sequence[Example],
    control: Sequence[Example],
    budget: Budget,
    material: Material,
) -> Outcome:
    """Teach a copy of the model `rows`, then ask it the clean questions."""
    settings = {
        "training.steps": budget.steps,
        "training.retain_batch": min(budget.batch, len(rows)),
        "training.learning_rate": budget.learning_rate,
        "training.schedule": "constant",
        "training.warmup_steps": 5,
        "adapter.rank": budget.rank,
        "adapter.alpha": 2 * budget.rank,
        "validation.every": 0,
        "seed": material.seed,
    }
    config = resolve(None, [f"{key}={value}" for key, value in settings.items()], method="finetune")
    copied = plain_copy(loaded)
    copied.model.requires_grad_(True)
    with without_info_messages():
        fitted = fit(copied, [], rows, config).loaded
    found = ask(fitted, [*scored, *control], lambda row: [row], material.batch_size)
    people = frozenset(person(row) for row in taught)
    return Outcome({row.id: found[row.id] for row in scored}, {row.id: found[row.id] for row in control}, fitted_on=people)
