"""The size at which a model sees pictures: fewer pixels take fewer tokens and less memory, and show less."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

from PIL import Image

PIXELS = 16_384
"""From this number on, a processor's largest size is a number of pixels (Qwen2-VL), below it the length of a side (Idefics). Chosen by
hand: 128 x 128 pixels, and no side is as long."""

SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""Numbers of tokens of a picture that Gemma-4's processor takes as a limit."""


class PictureSize(NamedTuple):
    """Limits of a picture's size; None for the processor's own.

    Attributes:
        pixels: width times height, at most.
        side: the longer side in pixels, at most.
    """

    pixels: int | None = None
    side: int | None = None

    @property
    def most_pixels(self) -> int | None:
        """Pixels that both limits allow."""
        return min((each for each in (self.pixels, self.side and self.side**2) if each), default=None)

    def scaled(self, picture: Image.Image) -> Image.Image:
        """Scale a picture down until it is within the limits; its sides keep their ratio."""
        width, height = picture.size
        factor = min(1.0, self.side / max(width, height) if self.side else 1.0)
        if self.pixels:
            factor = min(factor, math.sqrt(self.pixels / (width * height)))
        if factor == 1.0:
            return picture
        return picture.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BICUBIC)


def sized(processor: Any, size: PictureSize) -> Any:
    """Return a copy of a processor that does not scale pictures up again above the limits; the processor itself stays as it is.

    Args:
        processor: the model's processor.
        size: limits.

    Returns:
        The copy; the processor itself where there are no limits.
    """
    most = size.most_pixels
    if most is None:
        return processor
    own, pictures = copy.copy(processor), copy.deepcopy(processor.image_processor)
    own.image_processor = pictures
    given = dict(pictures.size or {})
    if "longest_edge" in given:
        limit = most if given["longest_edge"] >= PIXELS else _side(pictures, math.isqrt(most))
        edges = {name: min(int(given[name]), limit) for name in ("shortest_edge", "longest_edge") if given.get(name)}
        pictures.size = type(pictures.size)(**{**given, **edges}) if isinstance(pictures.size, dict) else _with(pictures.size, edges)
        for name in ("min_pixels", "max_pixels"):
            if getattr(pictures, name, None):
                setattr(pictures, name, min(getattr(pictures, name), most))
    elif getattr(pictures, "crop_to_patches", False) and {"height", "width"} <= given.keys():
        tiles = max(1, most // (given["height"] * given["width"]))
        pictures.max_patches = min(pictures.max_patches, tiles)
        pictures.min_patches = min(pictures.min_patches, pictures.max_patches)
    elif own_most := getattr(pictures, "max_soft_tokens", None):
        within = most // (pictures.patch_size * pictures.pooling_kernel_size) ** 2
        pictures.max_soft_tokens = min(own_most, max((each for each in SOFT_TOKENS if each <= within), default=SOFT_TOKENS[0]))
    return own


def has_one_size(processor: Any) -> bool:
    """Whether the processor brings every picture to the same size, so that smaller ones take as many tokens."""
    pictures = processor.image_processor
    tiled = getattr(pictures, "crop_to_patches", False) or getattr(pictures, "image_grid_pinpoints", None) is not None
    return not (tiled or "longest_edge" in dict(pictures.size or {}) or getattr(pictures, "max_soft_tokens", None))


def _with(size: Any, edges: dict[str, int]) -> Any:
    changed = copy.copy(size)
    for name, value in edges.items():
        setattr(changed, name, value)
    return changed


def _side(pictures: Any, side: int) -> int:
    """A side within the limit; a multiple of a tile's where the processor cuts pictures into tiles, one tile at least."""
    tile = dict(getattr(pictures, "max_image_size", None) or {}).get("longest_edge")
    return max(int(tile), side // int(tile) * int(tile)) if tile else side
