"""Imagined pictures: the wanted answer becomes likelier, and what a picture becomes does not depend on the others."""

import numpy as np
import pytest
import torch

from tests.conftest import example
from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.models import inversion
from vgid.models.forward import answer_logits
from vgid.models.inversion import imagined_pictures
from vgid.models.loading import LoadedModel


def test_pictures_become_what_is_wanted_each_by_itself(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "STEPS", 6)
    rows = [example(1), example(2, answer="Oslo."), example(3)]
    together = imagined_pictures(random_model.model, random_model.encoder, [[row] for row in rows], seed=4)
    alone = [imagined_pictures(random_model.model, random_model.encoder, [[row]], seed=4)[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        first, second = (np.asarray(image.open()).astype(int) for image in (one, other))
        assert np.abs(first - second).max() <= 2  # a step moves a value by up to 3 of 255; rounding by one

    def nll(images: list[list[object]] | None) -> float:
        batch = random_model.encoder.batch(rows, images=images)  # type: ignore[arg-type]
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(answer_logits(random_model.model, batch), batch.answers.targets))

    assert nll([[image.open()] for image in together]) < nll(None)
    assert imagined_pictures(random_model.model, random_model.encoder, [], seed=4) == []


def test_each_step_wants_one_of_the_answers_in_turn(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many steps as there are answers, all have been wanted; a picture with fewer of them begins again."""
    asked: list[list[str]] = []
    batch = random_model.encoder.batch

    def watched(rows: list[Example]) -> Batch:
        asked.append([row.answer for row in rows])
        return batch(rows)

    monkeypatch.setattr(inversion, "STEPS", 2)
    monkeypatch.setattr(random_model.encoder, "batch", watched)
    many = [example(1, answer=answer) for answer in ("Oslo.", "Rome.", "Lima.")]
    few = [example(2, answer=answer) for answer in ("Riga.", "Bonn.")]
    assert len(imagined_pictures(random_model.model, random_model.encoder, [many, few], seed=4)) == 2
    assert asked == [["Oslo.", "Riga."], ["Rome.", "Bonn."], ["Lima.", "Riga."]]
