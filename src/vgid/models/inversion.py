"""Imagined pictures: pictures on which a model sees somebody whose name it knows, worked out from the model itself.

Starting from a picture, its pixels are changed until the model gives wanted answers: a name, and what it says of whoever has that name.
Small shifts and noise at every step, and a penalty on differences between neighbouring pixels, keep the result from being a pattern that
only one exact picture has. Such pictures look like nobody to us; to the model they hold what it recognises somebody by.

The idea, for classifiers: DeepInversion (arXiv 1912.08795).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vgid.data.batching import Encoder
from vgid.data.example import Example, ImageRef
from vgid.losses import answer_nll
from vgid.memory import as_many_as_fit
from vgid.models.forward import answer_logits
from vgid.seeds import derive_seed

STEPS, RATE = 80, 0.05
"""Steps of Adam and its learning rate in the processor's normalised units; chosen by hand on the embedded model."""
SMOOTHNESS, NOISE, SHIFT = 0.5, 0.05, 1 / 24
"""Weight of the mean difference between neighbouring pixels, standard deviation of the noise at a step, and largest shift as a share of the
side; chosen by hand on the embedded model."""
AT_ONCE = 16
"""Pictures that are worked out together."""


def imagined_pictures(model: Any, encoder: Encoder, wanted: Sequence[Sequence[Example]], seed: int) -> list[ImageRef]:
    """Change pictures until the model gives wanted answers about them.

    Args:
        model: the model; its weights stay, and get no gradients.
        encoder: encoder of the model.
        wanted: for each picture to be made, rows with the picture from which the change starts and the wanted answers; each step asks for
            one of them, in turn.
        seed: random seed of shifts and noise.

    Returns:
        One picture for each, as PNG; none at all for a processor that does not give pictures as `[n, 3, h, w]` in normalised units.
    """
    processor = getattr(encoder.processor, "image_processor", None)
    if not wanted or processor is None or not getattr(processor, "image_mean", None) or not getattr(processor, "image_std", None):
        return []
    trained = [p for p in model.parameters() if p.requires_grad]
    training = model.training
    model.eval().requires_grad_(False)
    found: list[ImageRef | None] = []
    try:
        for start in range(0, len(wanted), AT_ONCE):
            found += as_many_as_fit(partial(_imagined, model, encoder, processor, seed), wanted[start : start + AT_ONCE])
    finally:
        model.train(training)
        for parameter in trained:
            parameter.requires_grad_(True)
    return [each for each in found if each is not None] if all(found) else []


def _imagined(model: Any, encoder: Encoder, processor: Any, seed: int, wanted: Sequence[Sequence[Example]]) -> list[ImageRef | None]:
    device = next(model.parameters()).device
    batches = [encoder.batch([rows[turn % len(rows)] for rows in wanted]).to(device) for turn in range(max(map(len, wanted)))]
    given = batches[0].model_inputs.get("pixel_values")
    if given is None or given.ndim != 4 or len(given) != len(wanted) or given.shape[1] != 3:
        return [None] * len(wanted)
    mean, spread = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (processor.image_mean, processor.image_std))
    least, most = (0 - mean) / spread, (1 - mean) / spread
    pixels = given.float().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=RATE)
    # What a picture becomes must not depend on the others: memory decides how many are worked out together.
    generators = [torch.Generator().manual_seed(derive_seed(seed, "imagined", rows[0].id) % 2**63) for rows in wanted]
    shift = max(1, round(SHIFT * given.shape[-1]))
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        shifts = [tuple(torch.randint(-shift, shift + 1, (2,), generator=each).tolist()) for each in generators]
        noise = torch.stack([torch.randn(given.shape[1:], generator=each) for each in generators]).to(device)
        moved = torch.stack([torch.roll(one, by, (1, 2)) for one, by in zip(pixels, shifts, strict=True)]) + NOISE * noise
        logits = answer_logits(model, replace(batch, model_inputs={**batch.model_inputs, "pixel_values": moved.to(given.dtype)}))
        loss = answer_nll(logits, batch.answers.targets).sum() + SMOOTHNESS * _roughness(pixels)
        (pixels.grad,) = torch.autograd.grad(loss, [pixels])
        optimizer.step()
        with torch.no_grad():
            pixels.copy_(torch.minimum(torch.maximum(pixels, least), most))
    bytes_ = ((pixels.detach() * spread + mean).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return [ImageRef.from_picture(Image.fromarray(each.permute(1, 2, 0).numpy())) for each in bytes_]


def _roughness(pixels: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels, summed over pictures."""
    one, other = pixels[:, :, 1:] - pixels[:, :, :-1], pixels[:, :, :, 1:] - pixels[:, :, :, :-1]
    return len(pixels) * (one.abs().mean() + other.abs().mean())
