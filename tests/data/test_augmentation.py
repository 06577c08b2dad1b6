"""Augmented rows: which rows are repeated, and what their pictures still show."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from tests.data.test_self_distilled import FORGET, RETAIN, row
from vgid.data.augmentation import augment_picture, augmented_rows
from vgid.data.example import STRANGER, ImageRef
from vgid.data.self_distilled import similar_questions

ALIKE = [
    row("a1", "Where does this person live?", 2, subject="r"),
    row("a2", "Who is this?", 1, subject="s", tags=(STRANGER,)),
    row("a3", "Where does Mona live?", None, subject="r"),
]


def test_rows_that_ask_what_the_forget_set_asks_come_again_with_other_pictures() -> None:
    retain = [*RETAIN, *ALIKE]
    # r1 and a1 ask for f1's fact, a2 for f3's name; the others ask for something else or have no picture.
    augmented = augmented_rows(FORGET, retain, 9, 0)
    origins = {each.question: each for each in (RETAIN[0], ALIKE[0], ALIKE[1])}
    assert sorted(each.question for each in augmented) == sorted(origins) and len({each.id for each in augmented}) == 3
    for each in augmented:
        origin = origins[each.question]
        assert (each.answer, each.subject, each.tags) == (origin.answer, origin.subject, (*origin.tags, "moved"))
        assert each.images[0].fingerprint != origin.images[0].fingerprint and each.images[0].size() == origin.images[0].size()


def test_the_choice_and_the_pictures_follow_from_the_seed() -> None:
    def made(seed: int, count: int = 2) -> list[tuple[str, str]]:
        return [(each.question, each.images[0].fingerprint) for each in augmented_rows(FORGET, [*RETAIN, *ALIKE], count, seed)]

    assert made(3) == made(3) != made(4) and len(made(3)) == 2 and made(3, 0) == []
    assert augmented_rows(FORGET, [RETAIN[1], ALIKE[2]], 5, 0) == []


def test_pictures_are_changed_when_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they had been changed at once, one after the other; before, not one is read."""
    opened: list[ImageRef] = []
    read = ImageRef.open
    monkeypatch.setattr(ImageRef, "open", lambda self: opened.append(self) or read(self))
    augmented = augmented_rows(FORGET, [*RETAIN, *ALIKE], 9, 0)
    assert not opened and len(augmented) == 3
    rng = Random("moved/0")
    similar_questions(FORGET, [*RETAIN, *ALIKE], rng)
    origins = {each.question: each for each in (RETAIN[0], ALIKE[0], ALIKE[1])}
    rng.sample(range(3), 3)  # which rows
    for each in augmented:
        at_once = augment_picture(origins[each.question].images[0].open(), rng)
        assert each.images[0].open().tobytes() == at_once.tobytes()
    assert len({each.images[0] for each in augmented}) == 3


def test_what_comes_into_view_has_the_colour_of_the_corner() -> None:
    picture = Image.new("RGB", (40, 30), (200, 10, 10))
    assert {colour for _, colour in augment_picture(picture, Random(1)).getcolors() or []} == {(200, 10, 10)}


def test_an_augmented_picture_still_shows_most_of_the_original() -> None:
    picture = Image.new("RGB", (60, 60), "white")
    picture.paste("black", (20, 20, 40, 40))  # a square in the middle: mirroring leaves it where it is
    for seed in range(20):
        augmented = np.asarray(augment_picture(picture, Random(seed)).convert("L")) < 128
        # 0.85 to 1.12 times the side: 0.72 to 1.25 times the area of 400 pixels; a twentieth of the side is 3 pixels.
        assert 0.68 * 400 < augmented.sum() < 1.3 * 400 and augmented[25:35, 25:35].all()
