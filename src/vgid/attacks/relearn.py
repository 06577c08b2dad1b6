"""Fine-tune on a little of what was forgotten, or on what was not, and see whether the rest comes back (cf. arXiv 2406.13356)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

from pydantic import Field

from vgid.attacks.asking import Found, ask_with_decoys
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, plain_copy, split_facts, split_people
from vgid.attacks.ways import ways
from vgid.config import resolve
from vgid.data.example import Example, subject_key
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.progress import without_info_messages
from vgid.training.fit import fit


class Budget(Settings):
    """Settings of plain fine-tuning with LoRA at a constant learning rate.

    Attributes:
        steps: optimizer steps.
        batch: rows in a step.
        learning_rate: learning rate of AdamW.
        rank: rank of the adapter; its alpha is twice as much.
    """

    steps: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    rank: int = Field(default=8, ge=1)


class RelearnConfig(Budget):
    """Settings of the attack on the forget set.

    Attributes:
        shares: number of training rows as a share of the forget rows, one level each; no person in them is scored.
    """

    shares: tuple[float, ...] = (0.1, 0.5)


@ATTACKS.register("relearn")
class Relearn(Attack[RelearnConfig]):
    """Fine-tune on rows about half of the forgotten people, and ask about the other half.

    The curve of recovered facts over budgets shows how deep forgetting goes.
    """

    Config = RelearnConfig
    access = "weights"
    finds = "suppression that a few steps undo"
    tries = "Training it again on a part of the forgotten facts, and asking for the rest"
    full: ClassVar[dict[str, Any]] = {"shares": (0.01, 0.05, 0.1, 0.25, 0.5), "steps": 100}
    most = 0.1
    position = 120

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each share; all score the same people. The attack needs two people, and weights that can be trained.

        Of few people it trains on half of the facts and asks about the other half, both ways round; with one fact it does not apply.
        """
        if material.by_facts:
            return self._halves(loaded, material)
        fitted, scored = split_people(material.forget, 0.5, material.seed)
        if not fitted or is_quantised(loaded.model):
            return {}
        shuffled = list(fitted)
        Random(f"relearn/{material.seed}").shuffle(shuffled)
        levels = {}
        for share in self.config.shares:
            rows = shuffled[: max(1, round(share * len(material.forget)))]
            found = relearned(loaded, rows, [*scored, *material.retain], self.config, material).rows
            forget, control = ({row.id: found[row.id] for row in part} for part in (scored, material.retain))
            levels[f"{100 * share:g} %"] = Outcome(forget, control, fitted_on=frozenset(map(subject_key, fitted)))
        return levels

    def _halves(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Teach either half of the facts; nothing that is scored was taught. Retained people are asked once."""
        if is_quantised(loaded.model):
            return {}
        levels: Outcomes = {}
        for share in self.config.shares:
            parts: list[Found] = []
            for number, (fitted, scored) in enumerate(split_facts(material.forget, material.seed)):
                shuffled = list(fitted)
                Random(f"relearn/{material.seed}/{number}").shuffle(shuffled)
                rows = shuffled[: max(1, round(share * len(material.forget)))]
                asked = [*scored, *(material.retain if number == 0 else ())]
                parts.append(relearned(loaded, rows, asked, self.config, material))
            if parts:
                levels[f"{100 * share:g} %"] = Found.of(parts).outcome(material)
        return levels


class RelearnOtherConfig(Budget):
    """Settings of the attack on the retain set.

    Attributes:
        rows: largest number of training rows.
    """

    rows: int = Field(default=200, ge=1)


@ATTACKS.register("relearn_other")
class RelearnOther(Attack[RelearnOtherConfig]):
    """Fine-tune on rows about half of the retained people, which hold nothing that was forgotten, and ask about all forgotten people."""

    Config = RelearnOtherConfig
    access = "weights"
    finds = "suppression that any further training undoes"
    tries = "Training it further on other facts, and asking for the forgotten ones"
    full: ClassVar[dict[str, Any]] = {"rows": 1000, "steps": 100}
    most = 0.1
    position = 130

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level; the control is about the other half of the retained people."""
        fitted, others = split_people(material.retain, 0.5, material.seed)
        if not fitted or is_quantised(loaded.model):
            return {}
        found = relearned(loaded, fitted[: self.config.rows], [*material.forget, *others], self.config, material)
        return {"": replace(found.outcome(material), fitted_on=frozenset(map(subject_key, fitted)))}


def relearned(loaded: LoadedModel, training: Sequence[Example], asked: Sequence[Example], budget: Budget, material: Material) -> Found:
    """Fine-tune a copy of the model, then ask it the clean questions.

    Args:
        loaded: the model; it is left unchanged.
        training: rows to fine-tune on; without any the model is asked as it is.
        asked: rows to ask about.
        budget: settings of the training.
        material: gives the seed and the number of questions that are asked at once.

    Returns:
        By row id: 1 where the answer holds the fact, else 0; and the same for decoys.
    """
    fitted = fine_tuned(loaded, training, budget, material.seed)
    return ask_with_decoys(fitted, asked, lambda row: ways(row, material), material.decoys, material.batch_size)


def fine_tuned(loaded: LoadedModel, training: Sequence[Example], budget: Budget, seed: int) -> LoadedModel:
    """Fine-tune a copy of a model.

    Args:
        loaded: the model; it is left unchanged.
        training: rows to fine-tune on; without any the copy is as the model.
        budget: settings of the training.
        seed: random seed of adapter and rows.

    Returns:
        The copy without any wrapper around its questions, with an adapter where it was trained.
    """
    if not training:
        return plain_copy(loaded)
    settings = {  # whatever a budget depends on, so that it does not change with the defaults of unlearning
        "training.steps": budget.steps,
        "training.retain_batch": min(budget.batch, len(training)),
        "training.learning_rate": budget.learning_rate,
        "training.schedule": "constant",
        "training.warmup_steps": 5,
        "training.precision": "fp32",
        "adapter.rank": budget.rank,
        "adapter.alpha": 2 * budget.rank,
        "validation.every": 0,
        "seed": seed,
    }
    config = resolve(None, [f"{key}={value}" for key, value in settings.items()], method="finetune")
    copied = plain_copy(loaded)
    copied.model.requires_grad_(True)
    with without_info_messages():
        return fit(copied, [], training, config).loaded
