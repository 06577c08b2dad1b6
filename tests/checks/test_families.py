"""The preflight over model families: nothing in it knows one by name."""

from pathlib import Path

import pytest

from tests.models.families import FAMILIES, Family, missing
from tests.models.test_families import ROWS
from vgid.checks.preflight import as_json, check_run
from vgid.config import load_config
from vgid.data.batching import Encoder
from vgid.models.loading import load_model

SETTINGS = ["adapter.rank=2", "training.gradient_checkpointing=true", "adapter.scope=[language,projector]", "method.noise.space=pixel"]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_gets_through(family: Family, tmp_path: Path) -> None:
    if missing(family):
        pytest.skip(f"{family} needs {', '.join(missing(family))}")
    family.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    rows = [row for kind, row in ROWS.items() if kind not in family.refuses]
    found = check_run(loaded, rows[:2], rows[2:], load_config(None, SETTINGS), allow_unknown=True, sample=2)
    told = as_json(found)
    assert told["ready"] and told["gradients"]["checkpointing"] and told["gradients"]["modules"]["language"]
    encoder = Encoder(loaded.processor)
    for name, part in (("forget", rows[:2]), ("retain", rows[2:])):
        assert told["rows"][name]["longest"] == max(len(encoder.row(row).text["input_ids"]) for row in part)
    images = [encoder.image_tokens(encoder.row(row)) // len(row.images) for row in rows if row.images]
    assert (told["image_tokens"]["min"], told["image_tokens"]["max"]) == (min(images), max(images))
