"""One small change to every picture that makes a model speak (universal adversarial perturbation, by projected signed gradients)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, person, split_people
from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.evaluation.generation import generate
from vgid.evaluation.inference import frozen
from vgid.evaluation.metrics import key_fact
from vgid.losses import answer_nll
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised

PIXELS = "pixel_values"


class SuaConfig(Settings):
    """`radius`, `stride`: of the largest change to a pixel and of a step, in 255ths; `batch`: rows in a step."""

    radius: float = Field(default=12, gt=0)
    stride: float = Field(default=1, gt=0)
    steps: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1)


@ATTACKS.register("sua")
class Sua(Attack[SuaConfig]):
    """Fit one perturbation on pictures and answers of half of the forgotten people; ask about the other half through it."""

    Config = SuaConfig
    access = "weights"
    finds = "forgetting that holds for clean pictures only"
    full: ClassVar = {"steps": 200, "batch": 16}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """It needs two people with pictures, and a processor that gives pictures of one size, not in patches."""
        taught, scored = split_people([row for row in material.forget if len(row.images) == 1], 0.5, material.seed)
        retain = [row for row in material.retain if len(row.images) == 1]
        if not taught or is_quantised(loaded.model) or not _uniform(loaded, [*taught, *scored, *retain]):
            return {}
        change = self.perturbation(loaded, taught, material.seed)
        rows, lowest, highest = [*scored, *retain], *_range(loaded)

        def encode(examples: Sequence[Example]) -> Batch:
            return changed(loaded.encoder.prompts(examples), change, lowest, highest)

        said = generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=material.batch_size, encode=encode)
        found = {row.id: float(key_fact(text, row.keywords, row.answer)) for row, text in zip(rows, said, strict=True)}
        forget, control = ({row.id: found[row.id] for row in part} for part in (scored, retain))
        return {"": Outcome(forget, control, fitted_on=frozenset(map(person, taught)))}

    def perturbation(self, loaded: LoadedModel, rows: Sequence[Example], seed: int) -> Tensor:
        """The change `[3, height, width]` to processed pictures under which the recorded answers are likeliest, found by signed steps."""
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
    """The batch with its pictures changed, each within what a picture can be."""
    pixels = batch.model_inputs[PIXELS]
    seen = torch.maximum(torch.minimum(pixels + change.to(pixels.dtype), highest), lowest)
    return replace(batch, model_inputs={**batch.model_inputs, PIXELS: seen})


def _range(loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """Black and white as the processor gives them, `[3, 1, 1]` each."""
    made: Any = loaded.processor.image_processor
    mean, deviation = (torch.tensor(list(each)).view(3, 1, 1) for each in (made.image_mean, made.image_std))
    return (0 - mean) / deviation, (1 - mean) / deviation


def _uniform(loaded: LoadedModel, rows: Sequence[Example]) -> bool:
    """Whether all pictures are `[1, 3, height, width]` of one size."""
    shapes = {tuple(pixels.shape) for row in rows if (pixels := loaded.encoder.row(row).images.get(PIXELS)) is not None}
    return len(shapes) == 1 and len(shape := next(iter(shapes))) == 4 and shape[:2] == (1, 3)
