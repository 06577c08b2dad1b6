"""Add one small perturbation to every picture, fitted to bring the answers back: a universal adversarial perturbation.

Sources: universal perturbations, arXiv 1610.08401; projected signed gradient steps, arXiv 1706.06083; against unlearned multimodal models,
cf. the stealthy unlearning attack (SUA), arXiv 2506.17265.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.attacks.asking import MAX_NEW_TOKENS, Found, find
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, split_facts, split_people
from vgid.data.batching import Batch
from vgid.data.example import Example, subject_key
from vgid.evaluation.generation import generate
from vgid.evaluation.inference import frozen
from vgid.evaluation.metrics import key_fact
from vgid.losses import answer_nll
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised

PIXELS = "pixel_values"
"""The model's input that holds processed pictures, `[1, 3, height, width]` for a row with one picture."""


class SuaConfig(Settings):
    """Settings of the attack.

    Attributes:
        radius: largest change of a pixel, in 255ths of its range.
        stride: change of a pixel in one step, in 255ths of its range.
        steps: number of steps.
        batch: rows in a step.
    """

    radius: float = Field(default=12, gt=0)
    stride: float = Field(default=1, gt=0)
    steps: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1)


@ATTACKS.register("sua")
class Sua(Attack[SuaConfig]):
    """Fit one perturbation to pictures and answers of half of the forgotten people, and ask about the other half through it."""

    Config = SuaConfig
    access = "weights"
    finds = "forgetting that holds for clean pictures only"
    tries = "Searching for a change of the pictures that brings the facts back"
    full: ClassVar = {"steps": 200, "batch": 16}
    most = 0.1
    position = 170

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level. The attack needs two people with pictures, and a processor that gives whole pictures of one size, not patches.

        Of few people it is fitted on half of the facts and asks about the other half, both ways round; of one fact, on retained people.
        """
        pictured, retain = ([row for row in part if len(row.images) == 1] for part in (material.forget, material.retain))
        if material.by_facts:
            halves = split_facts(pictured, material.seed) or [(retain, pictured)]
        else:
            halves = [split_people(pictured, 0.5, material.seed)]
        if not all(map(all, halves)) or is_quantised(loaded.model) or not _uniform(loaded, [*pictured, *retain]):
            return {}
        parts = [self._asked(loaded, *half, () if number else retain, material) for number, half in enumerate(halves)]
        fitted_on = frozenset() if material.by_facts else frozenset(map(subject_key, halves[0][0]))
        return {"": replace(Found.of(parts).outcome(material), fitted_on=fitted_on)}

    def _asked(
        self, loaded: LoadedModel, fitted: Sequence[Example], scored: Sequence[Example], retain: Sequence[Example], material: Material
    ) -> Found:
        """Fit the perturbation on some rows, and ask about others through it."""
        change = self.perturbation(loaded, fitted, material.seed)
        rows, lowest, highest = [*scored, *retain], *_range(loaded)

        def encode(examples: Sequence[Example]) -> Batch:
            return changed(loaded.encoder.prompts(examples), change, lowest, highest)

        said = generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=material.batch_size, encode=encode)
        answers = {row.id: [text] for row, text in zip(rows, said, strict=True)}
        return find(rows, answers, material.decoys, lambda row, text: key_fact(text, row.keywords, row.answer))

    def perturbation(self, loaded: LoadedModel, rows: Sequence[Example], seed: int) -> Tensor:
        """Fit the perturbation under which the recorded answers are likeliest.

        Args:
            loaded: the model; it is left unchanged.
            rows: rows with one picture each.
            seed: seed of the choice of rows in each step.

        Returns:
            The change `[3, height, width]` to processed pictures.
        """
        rng, (lowest, highest) = Random(f"sua/{seed}"), _range(loaded)
        unit = (highest - lowest) / 255
        shape = loaded.encoder.row(rows[0]).images[PIXELS].shape[1:]
        change = torch.zeros(shape)
        with frozen(loaded.model), torch.enable_grad():
            for _ in range(self.config.steps):
                batch = loaded.encoder.batch(rng.sample(list(rows), min(self.config.batch, len(rows))))
                tried = change.clone().requires_grad_(True)
                seen = changed(batch, tried, lowest, highest).to(loaded.model.device)
                loss = answer_nll(answer_logits(loaded.model, seen), seen.answers.targets).mean()
                [gradient] = torch.autograd.grad(loss, [tried])
                step = change - self.config.stride * unit * gradient.sign()
                change = torch.maximum(torch.minimum(step, self.config.radius * unit), -self.config.radius * unit)
        return change


def changed(batch: Batch, change: Tensor, lowest: Tensor, highest: Tensor) -> Batch:
    """Add a perturbation to the pictures of a batch, and cut off what no picture can hold.

    Args:
        batch: the batch, with processed pictures `[b, 3, height, width]`.
        change: the perturbation `[3, height, width]`.
        lowest: value of a black pixel, `[3, 1, 1]`.
        highest: value of a white pixel, `[3, 1, 1]`.

    Returns:
        A batch with changed pictures; the one given is left unchanged.
    """
    pixels = batch.model_inputs[PIXELS]
    seen = torch.maximum(torch.minimum(pixels + change.to(pixels.dtype), highest), lowest)
    return replace(batch, model_inputs={**batch.model_inputs, PIXELS: seen})


def _range(loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """Black and white as the processor gives them, `[3, 1, 1]` each."""
    processor: Any = loaded.processor.image_processor
    mean, deviation = (torch.tensor(list(each)).view(3, 1, 1) for each in (processor.image_mean, processor.image_std))
    return (0 - mean) / deviation, (1 - mean) / deviation


def _uniform(loaded: LoadedModel, rows: Sequence[Example]) -> bool:
    """Whether all processed pictures are `[1, 3, height, width]` of one size."""
    shapes = {tuple(pixels.shape) for row in rows if (pixels := loaded.encoder.row(row).images.get(PIXELS)) is not None}
    return len(shapes) == 1 and len(shape := next(iter(shapes))) == 4 and shape[:2] == (1, 3)
