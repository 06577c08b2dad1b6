import pytest

from vgid.models.loading import LoadedModel, load_model


@pytest.fixture
def long_model(random_folder: object) -> LoadedModel:
    """A random model that takes long prompts: its tokens are bytes, and it computes positions as they come."""
    loaded = load_model(str(random_folder))
    loaded.processor.tokenizer.model_max_length = 8192
    return loaded
