"""Image perturbations P_phi for the VGID teacher (arXiv 2606.00105), as pure functions of pixels and a seed.

Shapes: `x` is `[i, 3, height, width]`, i images. In pixel space values are in [0, 1]; in normalised space they are what the processor
gives the model, and for elementwise noise in any layout. Every image has its own seed, so the result depends neither on the other images
nor on their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vgid.data.batching import Batch, EncodedRow, Encoder
from vgid.data.example import Example, altered
from vgid.data.packing import Style
from vgid.errors import ModelError
from vgid.seeds import derive_seed

ELEMENTWISE = ("uniform", "gaussian", "diffusion")
"""Kinds of noise that change each value independently, and so work with pixels in any layout."""
NoiseKind = Literal["none", "uniform", "gaussian", "blur", "shuffle", "mean", "diffusion"]
"""Kinds of noise, described in `NoiseConfig`."""


class NoiseConfig(BaseModel):
    """How the teacher's image is perturbed.

    Attributes:
        kind: `uniform` replaces every value by U[0, 1) (the released code); `gaussian` mixes (1 - strength) x + strength e, e ~ N(0, 1);
            `blur` is a Gaussian blur of strength x a quarter of the image's side; `shuffle` permutes square patches; `mean` leaves
            only the mean colour; `diffusion` is the forward process of DDPM (arXiv 2006.11239) at step strength x 1000 of the
            linear schedule.
        strength: strength of the noise, in [0, 1]; `uniform`, `shuffle` and `mean` ignore it.
        patch: side of a shuffled patch, in pixels.
        space: `pixel` perturbs before the processor, `normalised` after it (`blur`, `shuffle` and `mean` then need a processor that
            returns pictures `[i, 3, height, width]`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: NoiseKind = "uniform"
    strength: float = Field(default=1.0, ge=0.0, le=1.0)
    patch: int = Field(default=8, ge=1)
    space: Literal["pixel", "normalised"] = "normalised"


def perturb(x: Tensor, config: NoiseConfig, seeds: Sequence[int]) -> Tensor:
    """Perturb images.

    Args:
        x: images `[i, 3, height, width]`; for elementwise noise `[i, ...]`.
        config: kind, strength and space of the noise.
        seeds: one random seed for each image.

    Returns:
        Perturbed images, with shape, precision and device of `x`.

    Raises:
        ValueError: the number of seeds is not that of images.
    """
    if len(seeds) != len(x):
        raise ValueError(f"expected one seed per image, got {len(seeds)} for {len(x)}")
    images = [_one(image.float(), config, torch.Generator().manual_seed(seed)) for image, seed in zip(x.cpu(), seeds, strict=True)]
    out = torch.stack(images) if images else x
    if config.space == "pixel":
        out = out.clamp(0.0, 1.0)
    return out.to(device=x.device, dtype=x.dtype)


def _one(x: Tensor, config: NoiseConfig, generator: torch.Generator) -> Tensor:
    match config.kind:
        case "none":
            return x
        case "uniform":
            return torch.rand(x.shape, generator=generator)
        case "gaussian":
            return (1.0 - config.strength) * x + config.strength * _normal(x, config, generator)
        case "blur":
            return _blur(x, config.strength * min(x.shape[-2:]) / 4)
        case "shuffle":
            return _shuffle(x, config.patch, generator)
        case "mean":
            return x.mean(dim=(-2, -1), keepdim=True).expand_as(x).clone()
        case "diffusion":
            kept = _signal_kept(config.strength)
            return math.sqrt(kept) * x + math.sqrt(1.0 - kept) * _normal(x, config, generator)


def _normal(x: Tensor, config: NoiseConfig, generator: torch.Generator) -> Tensor:
    """N(0, 1) in normalised space; in pixel space the same noise around mid-grey, where two standard deviations reach black and white."""
    e = torch.randn(x.shape, generator=generator)
    return e if config.space == "normalised" else 0.5 + 0.25 * e


def _signal_kept(strength: float, steps: int = 1000) -> float:
    """The product of 1 - beta_t up to step strength x 1000, beta from 1e-4 to 0.02 (DDPM, equation 4)."""
    beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
    return float(torch.cumprod(1.0 - beta, 0)[round(strength * steps) - 1]) if round(strength * steps) else 1.0


def _blur(x: Tensor, sigma: float) -> Tensor:
    if sigma <= 0.0:
        return x
    # One matrix for each direction: exact at the borders, where weights are renormalised, for kernels of any size.
    height, width = (_blur_matrix(side, sigma) for side in x.shape[-2:])
    return torch.einsum("yh,chw,xw->cyx", height, x, width)


def _blur_matrix(side: int, sigma: float) -> Tensor:
    at = torch.arange(side, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _shuffle(x: Tensor, patch: int, generator: torch.Generator) -> Tensor:
    channels, height, width = x.shape
    rows, columns = height // patch, width // patch
    out = x.clone()
    inner = x[:, : rows * patch, : columns * patch].reshape(channels, rows, patch, columns, patch)
    patches = inner.permute(1, 3, 0, 2, 4).reshape(rows * columns, channels, patch, patch)
    patches = patches[torch.randperm(rows * columns, generator=generator)]
    inner = patches.reshape(rows, columns, channels, patch, patch).permute(2, 0, 3, 1, 4)
    out[:, : rows * patch, : columns * patch] = inner.reshape(channels, rows * patch, columns * patch)
    return out


def perturb_batch(
    encoder: Encoder,
    examples: Sequence[Example],
    config: NoiseConfig,
    *,
    seed: tuple[object, ...],
    instruction: str | None,
    answers: Sequence[str] | None = None,
    prompts_only: bool = False,
    packing: Style | None = None,
) -> Batch:
    """Encode examples as the teacher sees them: with perturbed pictures, and with the instruction before the question.

    The noise of a picture depends on `seed`, on the picture and on its place in the example, so that questions about one picture can share
    a row.

    Args:
        encoder: encodes examples for the model.
        examples: the examples to encode.
        config: kind, strength and space of the noise.
        seed: values that the noise depends on, such as the run's seed and the step.
        instruction: text before every question; None for none.
        answers: one answer for each example; None for the recorded ones.
        prompts_only: whether to leave the answers out, and pad on the left, for generation.
        packing: how examples share rows; None for one row each.

    Returns:
        A batch, as `Encoder.batch` or `Encoder.prompts` gives it.

    Raises:
        ModelError: the noise moves or mixes pixels in normalised space, and the processor does not return pictures
            `[i, 3, height, width]`.
    """
    said: Sequence[str | None] = [None] * len(examples) if prompts_only else (answers if answers is not None else [""] * len(examples))
    rows = [perturb_row(encoder, e, config, seed=seed, instruction=instruction, answer=a) for e, a in zip(examples, said, strict=True)]
    return encoder.pack(rows, examples, packing) if packing else encoder.collate(rows, side="left" if prompts_only else "right")


def perturb_row(
    encoder: Encoder,
    example: Example,
    config: NoiseConfig,
    *,
    seed: tuple[object, ...],
    instruction: str | None = None,
    answer: str | None = "",
) -> EncodedRow:
    """Encode one example as the teacher sees it: one row of `perturb_batch`.

    Args:
        encoder: encodes examples for the model.
        example: the example to encode.
        config: kind, strength and space of the noise.
        seed: values that the noise depends on.
        instruction: text before the question; None for none.
        answer: text of the answer; "" for the recorded one, None for none.

    Returns:
        The encoded row.

    Raises:
        ModelError: as `perturb_batch`.
    """
    seeds = [derive_seed(*seed, ref.fingerprint, k) for k, ref in enumerate(example.images)]
    if config.kind == "none":
        return encoder.row(example, instruction, answer)
    if config.space == "pixel":
        return encoder.row(example, instruction, answer, _perturbed_images(encoder, example, config, seeds))
    row = encoder.row(example, instruction, answer)
    if "pixel_values" not in row.images:
        return row
    x = _perturbed_values(row.images["pixel_values"], encoder, example, config, seeds)
    return replace(row, images={**row.images, "pixel_values": x})


def _perturbed_values(x: Tensor, encoder: Encoder, example: Example, config: NoiseConfig, seeds: Sequence[int]) -> Tensor:
    """Perturb one row's pixels, whatever their layout: pictures, tiles of pictures, or a list of patches."""
    if x.ndim == 4 and len(x) == len(seeds):
        return perturb(x, config, seeds)
    if config.kind not in ELEMENTWISE:
        raise ModelError(
            "this processor does not return plain pictures, so their pixels cannot be moved in normalised space",
            expected=f"pixel_values of shape [{len(seeds)}, 3, height, width], or noise of kind {', '.join(ELEMENTWISE)}",
            got=f"{list(x.shape)}, {config.kind}",
            fix="set noise.space to pixel",
        )
    # Elementwise noise needs to know only which values belong to which picture, so that each picture gets the noise of its seed.
    parts = x.flatten().split(_sizes(x, encoder, example))
    noisy = [perturb(part[None], config, [seed])[0] for part, seed in zip(parts, seeds, strict=False)]
    return torch.cat(noisy).view_as(x)


def _sizes(x: Tensor, encoder: Encoder, example: Example) -> list[int]:
    """Number of a row's pixel values that belong to each of its pictures; all to the first where the layout does not show it."""
    count = len(example.images)
    if len(x) == count or x.shape[:2] == (1, count):
        return [x.numel() // count] * count
    alone = [encoder.row(altered(example, images=(ref,)), answer=None).images["pixel_values"].numel() for ref in example.images]
    return alone if sum(alone) == x.numel() else [x.numel()]


def _perturbed_images(encoder: Encoder, example: Example, config: NoiseConfig, seeds: Sequence[int]) -> list[Image.Image]:
    images = []
    for ref, seed in zip(example.images, seeds, strict=True):
        x = torch.from_numpy(np.array(encoder.picture(ref))).permute(2, 0, 1)[None] / 255.0
        out = (perturb(x, config, [seed])[0] * 255.0).round().to(torch.uint8)
        images.append(Image.fromarray(out.permute(1, 2, 0).numpy()))
    return images
