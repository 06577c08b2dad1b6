"""An image processor that is asked once about each picture (that all families are encoded alike with it: tests/models/test_families.py)."""

import pytest
import torch
from PIL import Image

from vgid.data.processed_once import NotProcessedError, ProcessedOnce
from vgid.models.loading import LoadedModel

RED = Image.new("RGB", (20, 30), "red")


@pytest.fixture
def once(random_model: LoadedModel) -> ProcessedOnce:
    return ProcessedOnce(random_model.processor.image_processor)


def test_known_pictures_come_back_without_pixels(once: ProcessedOnce) -> None:
    assert once.blank("red") is None
    with once.of("red", [RED]):
        first = once([RED], return_tensors="pt")["pixel_values"]
    (blank,) = once.blank("red") or []
    assert blank.size == RED.size and blank.getbbox() is None
    with once.of("red", [blank]):
        again = once([blank], return_tensors="pt")["pixel_values"]
    assert again.shape == first.shape and first.any() and not again.any()
    assert again.untyped_storage().nbytes() == again.element_size()  # one zero stands for all


def test_what_was_not_asked_before_is_not_known(once: ProcessedOnce) -> None:
    with once.of("red", [RED]):
        once([RED], return_tensors="pt")
    for options, times in (({"do_normalize": False}, 1), ({}, 2)):
        with pytest.raises(NotProcessedError), once.of("red", [RED]):
            for _ in range(times):
                once([RED], return_tensors="pt", **options)
    once.forget("red")
    assert once.blank("red") is None


def test_other_pictures_are_processed_as_ever(once: ProcessedOnce, random_model: LoadedModel) -> None:
    with once.of("red", [RED]):
        once([RED], return_tensors="pt")
    expected = random_model.processor.image_processor([RED], return_tensors="pt")["pixel_values"]
    assert torch.equal(once([RED], return_tensors="pt")["pixel_values"], expected)
    assert once.size == random_model.processor.image_processor.size
