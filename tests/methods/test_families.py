"""Methods on more than one family: neurons are found in all of them, and runs on some end in a checkpoint that answers alike."""

from pathlib import Path

import pytest

from tests.methods.table import OTHERS, TRAINED, Row, forget_rows, retain_rows
from tests.models.families import FAMILIES, Family, missing
from vgid.errors import ModelError
from vgid.models.loading import LoadedModel, load_model
from vgid.models.structure import decoder_layers, feed_forward
from vgid.unlearning import train_and_export

SOME = ("LLaVA-1.5", "LLaVA with a mixture of experts", "Gemma-3", "Idefics3", "Qwen2.5-VL")
NEED_NEURONS = ("manu", "mip_editor")
"""Methods that edit neurons of feed-forward blocks, which experts do not have: each expert's weights are a slice of a larger tensor."""


def saved(family: Family, folder: Path) -> LoadedModel:
    """A checkpoint of the family, loaded; skipped where it cannot be made."""
    if missing(family):
        pytest.skip(f"{family} needs {', '.join(missing(family))}")
    try:
        if not folder.exists():
            family.save(folder)
        return load_model(folder)
    except ImportError as error:  # older releases of transformers need torchvision for more families
        pytest.skip(f"{family}: {str(error).strip().splitlines()[0]}")


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_layer_has_its_neurons(family: Family, tmp_path: Path) -> None:
    model = saved(family, tmp_path / "model").model
    assert len(decoder_layers(model)) == 2
    if not family.neurons:
        with pytest.raises(ModelError, match=r"no feed-forward neurons found"):
            feed_forward(model, ["language"])
        return
    blocks = feed_forward(model, ["language", "vision"])
    for part in ("language", "vision"):
        # Two layers each in the table; some towers have another block in a pooling head.
        assert 2 <= sum(block.part == part for block in blocks) <= 3
        assert all(block.width in (32, 64, 128) for block in blocks if block.part == part)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if str(family) in SOME], ids=str)
@pytest.mark.parametrize("row", [*TRAINED, *OTHERS], ids=str)
def test_methods_run_on_other_families(family: Family, row: Row, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / f"methods-{family}"
    if not family.neurons and row.name in NEED_NEURONS:
        with pytest.raises(ModelError, match=r"no feed-forward neurons found"):
            train_and_export(saved(family, folder), forget_rows(), retain_rows(), row.config, out=tmp_path / "out")
        return
    # Writing reloads the checkpoint with stock libraries and compares it.
    fitted = train_and_export(saved(family, folder), forget_rows(), retain_rows(), row.config, out=tmp_path / "out")
    assert (tmp_path / "out" / "merged").is_dir() and bool(fitted.curves) == (row in TRAINED)
