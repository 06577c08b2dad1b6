"""Limits of a picture's size: the picture itself, and the size to which processors scale it."""

from types import SimpleNamespace
from typing import Any

import pytest
import transformers as hf
from PIL import Image

from vgid.data.picture_size import PictureSize, has_one_size, sized


@pytest.mark.parametrize(
    ("size", "before", "after"),
    [
        (PictureSize(), (40, 20), (40, 20)),
        (PictureSize(side=40), (40, 20), (40, 20)),
        (PictureSize(side=20), (40, 20), (20, 10)),
        (PictureSize(pixels=200), (40, 20), (20, 10)),  # 800 pixels: each side by sqrt(200 / 800) = 1/2
        (PictureSize(pixels=200, side=10), (20, 40), (5, 10)),
        (PictureSize(side=10), (400, 3), (10, 1)),  # 3 x 10 / 400 is less than a pixel
    ],
)
def test_pictures_are_scaled_down_and_never_up(size: PictureSize, before: tuple[int, int], after: tuple[int, int]) -> None:
    assert size.scaled(Image.new("RGB", before)).size == after


def test_the_lower_of_both_limits_holds() -> None:
    limits = (PictureSize(), PictureSize(500), PictureSize(side=20), PictureSize(500, 20), PictureSize(300, 20))
    assert [limit.most_pixels for limit in limits] == [None, 500, 400, 400, 300]


def around(pictures: Any) -> SimpleNamespace:
    """A processor, of which only the part for pictures matters here."""
    return SimpleNamespace(image_processor=pictures)


def qwen() -> SimpleNamespace:
    return around(hf.Qwen2VLImageProcessor(patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28, "longest_edge": 280 * 280}))


def test_a_processor_scales_no_picture_up_again() -> None:
    own = qwen()
    limited = sized(own, PictureSize(pixels=56 * 56))
    assert sized(own, PictureSize()) is own
    picture = Image.new("RGB", (280, 280))
    patches = [int(each.image_processor(picture, return_tensors="pt")["image_grid_thw"].prod()) for each in (own, limited)]
    assert patches == [20 * 20, 4 * 4]  # patches of 14 x 14 pixels; the given processor stays as it was


def test_tiles_within_the_limit() -> None:
    tiled = hf.GotOcr2ImageProcessor(size={"height": 10, "width": 10}, crop_to_patches=True, min_patches=1, max_patches=4)
    own = around(tiled)
    assert [sized(own, PictureSize(pixels=most)).image_processor.max_patches for most in (50, 250, 1000)] == [1, 2, 4]
    assert tiled.max_patches == 4 and not has_one_size(own) and not has_one_size(qwen())
    assert has_one_size(around(hf.CLIPImageProcessor()))


@pytest.mark.parametrize(("most", "tokens"), [(10**6, 280), (150 * 64, 140), (140 * 64 - 1, 70), (64, 70)])
def test_soft_tokens_within_the_limit(most: int, tokens: int) -> None:
    """Gemma-4 scales every picture to its number of tokens, here of 8 x 8 pixels each; 70 is the least it takes."""
    own = around(SimpleNamespace(size=None, patch_size=4, pooling_kernel_size=2, max_soft_tokens=280))
    assert sized(own, PictureSize(pixels=most)).image_processor.max_soft_tokens == tokens and own.image_processor.max_soft_tokens == 280
