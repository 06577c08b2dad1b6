import pytest

from vgid.attacks import Material
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.tiny import tiny_path

from .people import material


@pytest.fixture(scope="session")
def base() -> LoadedModel:
    """The embedded base."""
    return load_model(tiny_path())


@pytest.fixture(scope="session")
def known() -> Material:
    """Rows about people it knows."""
    return material()
