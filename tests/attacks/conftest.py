import copy
from dataclasses import replace

import pytest
import torch

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


@pytest.fixture(scope="session")
def ignorant(base: LoadedModel) -> LoadedModel:
    """The embedded base with another decoder, which knows nothing."""
    model = copy.deepcopy(base.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" in name and "vision" not in name and parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * parameter.std())
    return replace(base, model=model.eval())
