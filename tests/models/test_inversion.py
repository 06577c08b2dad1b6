"""Imagined pictures: the wanted answer becomes likelier, and what a picture becomes does not depend on the others."""

import numpy as np
import pytest
import torch

from tests.conftest import example
from vgid.models import inversion
from vgid.models.forward import answer_logits
from vgid.models.inversion import imagined_pictures
from vgid.models.loading import LoadedModel


def test_pictures_become_what_is_wanted_each_by_itself(random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "STEPS", 6)
    rows = [example(1), example(2, answer="Oslo."), example(3)]
    together = imagined_pictures(random_model.model, random_model.encoder, rows, seed=4)
    alone = [imagined_pictures(random_model.model, random_model.encoder, [row], seed=4)[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        first, second = (np.asarray(image.open()).astype(int) for image in (one, other))
        assert np.abs(first - second).max() <= 2  # a step moves a value by up to 3 of 255; rounding by one

    def nll(images: list[list[object]] | None) -> float:
        batch = random_model.encoder.batch(rows, images=images)  # type: ignore[arg-type]
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(answer_logits(random_model.model, batch), batch.answers.targets))

    assert nll([[image.open()] for image in together]) < nll(None)
    assert imagined_pictures(random_model.model, random_model.encoder, [], seed=4) == []
