"""Checkpoints and adapters as people have them: each is loaded with the answers it had where it was made, or refused with a reason."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.conftest import example
from tests.models.families import llava
from vgid.data.batching import Encoder
from vgid.deployment import export_command, verify_command
from vgid.errors import ModelError
from vgid.models.checkpoints import tensor_headers
from vgid.models.export import merge_adapter, save_checkpoint
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.structure import base_of

Change = Callable[[Path], None]
PATCH = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of random weights."""
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    model, processor = llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def logits(loaded: LoadedModel) -> Tensor:
    rows = [example(1), example(2, image=False)]
    with torch.no_grad():
        return answer_logits(loaded.model, Encoder(loaded.processor).batch(rows)).float()


@pytest.fixture(scope="module")
def answers(base: Path) -> Tensor:
    return logits(load_model(base))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def put(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | values


def drop(*names: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {key: value for key, value in content.items() if key not in names}


def reweighted(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


# -- checkpoints that load as they are ------------------------------------------------------------------------------------


def sharded(folder: Path) -> None:
    AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def without_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def names_of_modules(folder: Path) -> None:
    """Names as the model's modules have them; stock libraries write LLaVA's older names, `language_model.model`."""

    def newer(name: str) -> str:
        if name == "language_model.lm_head.weight":
            return "lm_head.weight"
        return "model." + name.replace("language_model.model.", "language_model.")

    reweighted(folder, lambda tensors: {newer(name): value for name, value in tensors.items()})


def legacy_processor(folder: Path) -> None:
    """preprocessor_config.json and a tokenizer alone, the template in the tokenizer's file; what LLaVA's processor needs is nowhere."""
    content = json.loads((folder / "processor_config.json").read_text())
    pictures = {**content["image_processor"], "processor_class": "LlavaProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    template = (folder / "chat_template.jinja").read_text()
    edit(folder / "tokenizer_config.json", put(chat_template=template, processor_class="LlavaProcessor"))
    for name in ("processor_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def template_as_json(folder: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": (folder / "chat_template.jinja").read_text()}))
    (folder / "chat_template.jinja").unlink()


def no_pad(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", drop("pad_token"))


def no_end(folder: Path) -> None:
    """No token that ends a text in the tokenizer's files; generation_config.json has one."""
    edit(folder / "tokenizer_config.json", drop("eos_token"))


def half(dtype: torch.dtype) -> Change:
    def change(folder: Path) -> None:
        AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).save_pretrained(folder)

    return change


def tied(folder: Path) -> None:
    """Embeddings and head in one tensor."""
    reweighted(folder, lambda tensors: {name: value for name, value in tensors.items() if "lm_head" not in name})
    edit(folder / "config.json", put(tie_word_embeddings=True))
    edit(folder / "config.json", lambda c: {**c, "text_config": {**c["text_config"], "tie_word_embeddings": True}})


def resized(folder: Path) -> None:
    """A vocabulary that was filled up to a multiple of 64."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(pad_to_multiple_of=64)
    model.save_pretrained(folder)


def with_side_files(folder: Path) -> None:
    """What trainers leave beside a checkpoint."""
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "checkpoint-10").mkdir()


LOADS: dict[str, tuple[Change, float]] = {
    "shards with an index": (sharded, 0.0),
    "shards without an index": (without_index, 0.0),
    "newer names of tensors": (names_of_modules, 0.0),
    "legacy processor": (legacy_processor, 0.0),
    "template in a JSON file": (template_as_json, 0.0),
    "no padding token": (no_pad, 1e-5),
    "no token that ends a text in the tokenizer": (no_end, 0.0),
    "bfloat16": (half(torch.bfloat16), 0.05),
    "float16": (half(torch.float16), 0.01),
    "side files of a trainer": (with_side_files, 0.0),
}
"""Change of a checkpoint, and the largest difference of its logits from the unchanged one's."""


@pytest.mark.parametrize("name", LOADS)
def test_loads_with_the_same_answers(name: str, copy: Path, answers: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    change, tolerance = LOADS[name]
    change(copy)
    with caplog.at_level(logging.INFO, "vgid"):
        loaded = load_model(copy)
    assert loaded.path == str(copy) and loaded.model.name_or_path == str(copy)
    assert (logits(loaded) - answers).abs().max() <= tolerance
    for word in {"legacy processor": ["patch_size"], "no padding token": ["pad_token"], "shards without an index": ["no index"]}.get(
        name, []
    ):
        assert word in caplog.text


def test_tied_and_resized_checkpoints_come_back_whole(copy: Path, tmp_path: Path) -> None:
    for change in (tied, resized, sharded):
        change(copy)
        loaded = load_model(copy)
        save_checkpoint(loaded.model, loaded.processor, tmp_path / change.__name__, loaded)
        before, after = tensor_headers(copy), tensor_headers(tmp_path / change.__name__)
        assert before == after and "lm_head.weight" not in before
        assert torch.equal(logits(load_model(tmp_path / change.__name__)), logits(loaded))


# -- checkpoints that are refused -----------------------------------------------------------------------------------------


def lost_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00003.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def lost_shard_without_index(folder: Path) -> None:
    without_index(folder)
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()


def quantised(**settings: Any) -> Change:
    return lambda folder: edit(folder / "config.json", put(quantization_config=settings))


def written(file: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data) and None


def index(content: str) -> Change:
    def change(folder: Path) -> None:
        sharded(folder)
        (folder / "model.safetensors.index.json").write_text(content)

    return change


def truncated(file: str, keep: float) -> Change:
    def change(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(keep * len(data))])

    return change


def text_config(**values: Any) -> Change:
    return lambda folder: edit(folder / "config.json", lambda c: {**c, "text_config": {**c["text_config"], **values}})


def original_llava(folder: Path) -> None:
    edit(folder / "config.json", put(architectures=["LlavaLlamaForCausalLM"], mm_vision_tower="openai/clip-vit-large-patch14-336"))


def no_end_anywhere(folder: Path) -> None:
    no_end(folder)
    text_config(eos_token_id=None)(folder)
    edit(folder / "config.json", drop("eos_token_id"))
    edit(folder / "generation_config.json", drop("eos_token_id"))


def more_tokens(folder: Path) -> None:
    edit(
        folder / "tokenizer.json",
        lambda c: {
            **c,
            "added_tokens": [
                *c["added_tokens"],
                *({**c["added_tokens"][0], "id": 5000 + n, "content": f"<more{n}>"} for n in range(900)),
            ],
        },
    )


def endless_pattern(folder: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a|aa)+(a|aa)+$b"}, "behavior": "Isolated", "invert": False}
    edit(folder / "tokenizer.json", put(pre_tokenizer=pattern))


def pipe_of_weights(folder: Path) -> None:
    """Nobody will ever write to it."""
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def text_only(folder: Path) -> None:
    """A checkpoint of the language model alone, as it has no processor."""
    edit(folder / "config.json", lambda content: content["text_config"])
    (folder / "processor_config.json").unlink()


def in_few_bits(dtype: torch.dtype) -> Change:
    return lambda folder: reweighted(
        folder, lambda tensors: {name: value.to(dtype) if "q_proj" in name else value for name, value in tensors.items()}
    )


def in_a_folder_below(folder: Path) -> None:
    """As trainers write it."""
    files = list(folder.iterdir())
    (folder / "checkpoint-100").mkdir()
    for file in files:
        file.rename(folder / "checkpoint-100" / file.name)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def bad_tensor(folder: Path) -> None:
    reweighted(folder, lambda tensors: {name: value[:1].clone() if "q_proj" in name else value for name, value in tensors.items()})


REFUSED: dict[str, tuple[Change, str]] = {
    "a shard is missing": (lost_shard, r"(?s)a file of weights is missing.*expected: model-0000\d-of"),
    "a shard is missing, no index": (lost_shard_without_index, r"(?s)a file of weights is missing.*model-0000\d-of"),
    "index of another type": (
        lambda f: (sharded(f), written("model.safetensors.index.json", '{"weight_map": [1]}')(f)),
        "index of the weights",
    ),
    "index that leads out of the folder": (
        lambda f: (sharded(f), written("model.safetensors.index.json", '{"weight_map": {"a": "../x.safetensors"}}')(f)),
        "index of the weights",
    ),
    "original LLaVA code": (original_llava, "layout of the original LLaVA code"),
    "AWQ": (quantised(quant_method="awq", bits=4), "quantised by awq"),
    "GPTQ": (quantised(quant_method="gptq", bits=4), "quantised by gptq"),
    "FP8": (quantised(quant_method="fp8"), "quantised by fp8"),
    "compressed tensors": (quantised(quant_method="compressed-tensors"), "quantised by compressed-tensors"),
    "quantised, no method": (quantised(bits=4), "quantised by an unknown method"),
    "the language model alone quantised": (text_config(quantization_config={"quant_method": "awq"}), "quantised by awq"),
    "8-bit weights without a word": (in_few_bits(torch.int8), "quantised by an unknown method, in 8 bits"),
    "weights in float8 without a word": (in_few_bits(torch.float8_e4m3fn), "quantised by an unknown method, in 8 bits"),
    "a language model": (text_only, "(?s)the model takes no pictures.*a language model, llama"),
    "the parent of a checkpoint": (in_a_folder_below, "(?s)holds no model.*give the folder itself: checkpoint-100"),
    "another token for pictures": (
        lambda f: edit(f / "config.json", put(image_token_index=7, image_token_id=7)),
        "(?s)disagree about the token of a picture.*expected: token 7",
    ),
    "a pointer of git": (written("model.safetensors", POINTER), "(?s)the weights cannot be read.*git lfs pull"),
    "truncated weights": (truncated("model.safetensors", 0.5), "the weights cannot be read"),
    "weights cut in the header": (truncated("model.safetensors", 0.001), "the weights cannot be read"),
    "empty weights": (written("model.safetensors", b""), "the weights cannot be read"),
    "a folder in the place of weights": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()],
        "not in a plain file",
    ),
    **({"a pipe in the place of weights": (pipe_of_weights, "not in a plain file")} if os.name == "posix" else {}),
    "header of another type": (written("model.safetensors", b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]"), "the weights cannot be read"),
    "tensors of another shape": (bad_tensor, "the model cannot be loaded"),
    "config of another type": (written("config.json", "[]"), "not a JSON object"),
    "truncated config": (truncated("config.json", 0.5), "the file cannot be read"),
    "config in another encoding": (written("config.json", b"\xff\xfe{}"), "the file cannot be read"),
    "config nested deep": (written("config.json", "[" * 100_000), "the file cannot be read"),
    "a nested configuration of another type": (
        lambda f: edit(f / "config.json", put(text_config=True)),
        r"(?s)text_config: an object.*bool",
    ),
    "names of classes of another type": (lambda f: edit(f / "config.json", put(architectures=[1])), "architectures: a list of texts"),
    "no model type": (lambda f: edit(f / "config.json", drop("model_type")), "names no kind of model"),
    "unknown model type": (lambda f: edit(f / "config.json", put(model_type="nobody-knows")), "the model cannot be loaded"),
    "a number as text": (text_config(hidden_size="wide"), "the model cannot be loaded"),
    "a billion layers": (text_config(num_hidden_layers=10**9), "more layers than there are tensors"),
    "a vocabulary of 10^12": (text_config(vocab_size=10**12), "out of range"),
    "a negative size": (text_config(hidden_size=-4), "the model cannot be loaded"),
    "truncated processor": (truncated("processor_config.json", 0.5), "the file cannot be read"),
    "truncated tokenizer": (truncated("tokenizer.json", 0.5), "the file cannot be read"),
    "tokenizer of other content": (written("tokenizer.json", "{}"), "cannot be loaded|cannot be read"),
    "a pattern that does not end": (endless_pattern, "the tokenizer cannot encode a text"),
    "nothing ends a text": (no_end_anywhere, "with which token a text ends"),
    "more tokens than embeddings": (more_tokens, "more tokens than the model"),
    "attention from the hub": (
        lambda f: edit(f / "config.json", put(attn_implementation="someone/kernel")),
        "needs code that comes with it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_the_reason(name: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgid.limits.SECONDS", 2.0)
    change, text = REFUSED[name]
    change(copy)
    with pytest.raises(ModelError, match=text) as error:
        load_model(copy)
    assert str(copy) in str(error.value)


# -- code that comes with a checkpoint ------------------------------------------------------------------------------------


def code(folder: Path, file: str, name: str, entry: Any, **values: Any) -> None:
    """A class of the checkpoint's own in one of its files; its module leaves a file behind when it is imported."""
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\nclass Own: ...\n")
    edit(folder / file, lambda content: {**content, "auto_map": {name: entry}, **values})


def own_processor_alone(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", drop("processor_class"))
    code(folder, "processor_config.json", "AutoProcessor", "own.Own", processor_class="OwnProcessor")
    edit(folder / "config.json", put(model_type="nobody-knows"))


def own_generation(folder: Path) -> None:
    code(folder, "config.json", "AutoConfig", "own.Own")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate" / "generate.py")


CODE: dict[str, tuple[Change, bool]] = {
    "model and configuration": (lambda f: code(f, "config.json", "AutoConfig", "own.Own", model_type="nobody-knows"), False),
    "processor": (lambda f: code(f, "processor_config.json", "AutoProcessor", "own.Own", processor_class="OwnProcessor"), True),
    "processor of an unknown model": (own_processor_alone, False),
    "tokenizer": (lambda f: code(f, "tokenizer_config.json", "AutoTokenizer", ["own.Own", None], tokenizer_class="OwnTokenizer"), True),
    "generation": (own_generation, True),
}
"""Where the code is named, and whether the checkpoint may load without it."""


@pytest.mark.parametrize("name", CODE)
def test_code_of_a_checkpoint_never_runs_unasked(name: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input"))
    change, may_load = CODE[name]
    change(copy)
    try:
        load_model(copy)
        assert may_load
    except ModelError as error:
        assert "--trust-remote-code" in str(error) or may_load
    assert not (copy / "ran").exists()


def test_trusted_code_runs(copy: Path) -> None:
    code(copy, "config.json", "AutoConfig", "own.Own", model_type="nobody-knows")
    with pytest.raises(ModelError):  # the class in it is none of a configuration
        load_model(copy, trust_remote_code=True)
    assert (copy / "ran").exists()


# -- adapters -------------------------------------------------------------------------------------------------------------

TARGETS = ["q_proj", "v_proj"]


def trained(base: Path, out: Path, prepare: Change | None = None, **settings: Any) -> Tensor:
    """Write an adapter as PEFT does, with every trained tensor changed, and return the logits it has in PEFT."""
    loaded = load_model(base)
    model = loaded.model
    if prepare is not None:
        prepare(model)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": TARGETS, **settings}))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(out)
    edit(out / "adapter_config.json", put(base_model_name_or_path=str(base)))
    loaded.processor.save_pretrained(out)
    return logits(LoadedModel(model.eval(), loaded.processor, str(base)))


def renamed(out: Path) -> None:
    """Names that PEFT gave to LLaVA's modules with transformers before 4.52."""
    tensors = load_file(out / "adapter_model.safetensors")
    older = {name.replace("model.model.language_model.", "model.language_model.model."): value for name, value in tensors.items()}
    assert older.keys() != tensors.keys()
    save_file(older, out / "adapter_model.safetensors", {"format": "pt"})


def as_llama_factory(out: Path) -> None:
    """What the trainer leaves beside it."""
    (out / "training_args.bin").write_bytes(b"pickle")
    (out / "checkpoint-3").mkdir()


def as_trl(out: Path) -> None:
    """The tokenizer alone, without the files of the processor."""
    (out / "processor_config.json").unlink()
    (out / "README.md").write_text("# Model card")


ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True, "lora_alpha": 16},
    "ranks and scales by pattern": {"rank_pattern": {r"layers\.0\..*q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "biases": {"bias": "all"},
    "biases of adapted layers, projector": {"bias": "lora_only", "target_modules": ["linear_1", "linear_2"]},
    "bias of the update": {"lora_bias": True, "target_modules": ["linear_1", "linear_2"]},
    "projector trained whole": {"modules_to_save": ["multi_modal_projector"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings and head trained whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "single tokens": {"trainable_token_indices": {"embed_tokens": [5, 7]}},
    "OLoRA": {"init_lora_weights": "olora"},
    "PiSSA": {"init_lora_weights": "pissa"},
    "LLaMA-Factory": {"target_modules": r"^(?!.*vision_tower)(?=.*language_model).*(?:q_proj|v_proj)$"},
    "convolution of the vision tower": {"target_modules": ["patch_embedding"]},
}
"""Settings of PEFT's LoraConfig."""
LAYOUTS: dict[str, Change] = {"older names": renamed, "LLaMA-Factory": as_llama_factory, "TRL": as_trl}


QUICK = ("DoRA", "projector trained whole", "biases", "LLaMA-Factory")
KINDS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted({*ADAPTERS, *LAYOUTS})]


@pytest.mark.parametrize("name", KINDS)
def test_adapters_beside_a_model_as_a_model_and_merged(name: str, base: Path, tmp_path: Path, answers: Tensor) -> None:
    """The same answers in PEFT, with `--adapter`, as `--model`, and exported."""
    out = tmp_path / "adapter"
    expected = trained(base, out, **ADAPTERS.get(name, {}))
    LAYOUTS.get(name, lambda _: None)(out)
    assert (expected - answers).abs().max() > 1e-3
    beside, folded = load_model(base, adapter=out), load_model(out)
    assert isinstance(beside.model, PeftModel) and not isinstance(folded.model, PeftModel)
    assert folded.path == folded.model.name_or_path == str(out)
    assert torch.allclose(logits(beside), expected, atol=1e-4) and torch.allclose(logits(folded), expected, atol=1e-4)
    merge_adapter(str(base), out, tmp_path / "merged")
    assert tensor_headers(tmp_path / "merged") == tensor_headers(base)
    assert torch.allclose(logits(load_model(tmp_path / "merged")), expected, atol=1e-4)


def test_an_adapter_that_added_tokens(base: Path, tmp_path: Path) -> None:
    """Embeddings and head were resized and are in the adapter; the tokenizer beside it has the new tokens, and is used with it."""
    out, merged, added = tmp_path / "adapter", tmp_path / "merged", ["<one>", "<two>", "<three>"]
    loaded = load_model(base)
    rows = loaded.model.get_input_embeddings().weight.shape[0] + 3
    settings = {"modules_to_save": ["embed_tokens", "lm_head"]}
    expected = trained(base, out, lambda model: model.resize_token_embeddings(rows), **settings)
    assert loaded.processor.tokenizer.add_tokens(added) == 3
    loaded.processor.save_pretrained(out)
    merge_adapter(str(base), out, merged)
    export_command(str(base), out, tmp_path / "copied", merge=False)
    for each in (load_model(out), load_model(base, adapter=out), load_model(merged), load_model(tmp_path / "copied")):
        assert torch.allclose(logits(each), expected, atol=1e-4)
        assert base_of(each.model).get_input_embeddings().weight.shape[0] == rows
        assert len(each.processor.tokenizer(added[1], add_special_tokens=False)["input_ids"]) == 1
    assert verify_command(merged, str(base), [], adapter=out)["same_answers"] == 1.0


def test_an_adapter_that_unties_embeddings_and_head(copy: Path, tmp_path: Path) -> None:
    tied(copy)
    expected = trained(copy, tmp_path / "adapter", modules_to_save=["embed_tokens"])
    folded = load_model(tmp_path / "adapter")
    assert torch.allclose(logits(folded), expected, atol=1e-4)
    save_checkpoint(folded.model, folded.processor, tmp_path / "merged", folded)
    assert torch.allclose(logits(load_model(tmp_path / "merged")), expected, atol=1e-4)
    assert len(tensor_headers(tmp_path / "merged")) == len(tensor_headers(copy)) + 1
    assert verify_command(tmp_path / "merged", None, [], adapter=tmp_path / "adapter")["same_answers"] == 1.0


def settings(**values: Any) -> Change:
    return lambda out: edit(out / "adapter_config.json", put(**values))


def lose_a_tensor(out: Path) -> None:
    tensors = load_file(out / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), out / "adapter_model.safetensors", {"format": "pt"})


REFUSED_ADAPTERS: dict[str, tuple[Change, str]] = {
    "another kind": (settings(peft_type="IA3"), "(?s)this kind of adapter is not supported.*IA3"),
    "no kind": (settings(peft_type=None), "(?s)this kind of adapter is not supported.*NoneType"),
    "activated LoRA": (settings(alora_invocation_tokens=[1, 2]), "(?s)settings that are not supported.*alora_invocation_tokens"),
    "copied layers": (settings(layer_replication=[[0, 1], [0, 1]]), "(?s)settings that are not supported.*layer_replication"),
    "a base that training changed": (settings(init_lora_weights="corda"), "a base that its training changed"),
    "rank of a million": (settings(r=1_000_000), "(?s)rank is not that of its tensors.*expected: ranks of 4.*1000000"),
    "rank of a million by pattern": (settings(rank_pattern={"q_proj": 1_000_000}), "rank is not that of its tensors"),
    "negative rank": (settings(r=-4), "rank is not that of its tensors"),
    "rank as text": (settings(r="4"), "(?s)another type.*r: int"),
    "names that are no texts": (settings(target_modules=[1, 2]), "(?s)another type.*target_modules"),
    "a pattern that does not end": (settings(target_modules=r"([a-z._0-9]+)+[!]"), "(?s)a pattern of the adapter.*no end"),
    "a pattern that is not valid": (settings(target_modules="(q_proj"), "a pattern of the adapter cannot be used"),
    "modules of other models": (settings(target_modules=["c_attn"]), "the adapter does not fit the model"),
    "more modules than tensors": (settings(target_modules=["q_proj", "v_proj", "k_proj"]), "do not match the model's modules"),
    "a tensor is missing": (lose_a_tensor, "1 that are missing"),
    "config of another type": (written("adapter_config.json", "[]"), "not a JSON object"),
    "truncated config": (truncated("adapter_config.json", 0.5), "the file cannot be read"),
    "truncated weights": (truncated("adapter_model.safetensors", 0.5), "the weights cannot be read"),
    "empty weights": (written("adapter_model.safetensors", b""), "the weights cannot be read"),
    "weights in a pickle": (
        lambda out: (out / "adapter_model.safetensors").rename(out / "adapter_model.bin") and None,
        "(?s)no weights.*adapter_model.bin",
    ),
    "no base": (settings(base_model_name_or_path=None), "does not name its base"),
    "a base that is gone": (settings(base_model_name_or_path="/none/llava"), "(?s)the adapter's base is not there.*with --adapter"),
    "a pointer of git": (written("adapter_model.safetensors", POINTER), "(?s)the weights cannot be read.*git lfs pull"),
    "a base that is an adapter": (lambda out: settings(base_model_name_or_path=str(out))(out), "belongs to another adapter"),
    "a model beside it": (lambda out: (out / "config.json").write_text("{}") and None, "holds a model and an adapter"),
}


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter") / "adapter"
    trained(base, out)
    return out


@pytest.mark.parametrize("name", REFUSED_ADAPTERS)
def test_an_adapter_is_refused_with_the_reason(name: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgid.limits.SECONDS", 2.0)
    change, text = REFUSED_ADAPTERS[name]
    out = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    change(out)
    with pytest.raises(ModelError, match=text) as error:
        load_model(out)
    assert str(out) in str(error.value)
