"""Exports: written in one go, proved with stock libraries, and refused where an adapter does not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.conftest import Vgid, example
from tests.models.test_models import shaken
from vgid.data.writing import write_examples
from vgid.deployment import export_command, verify_command
from vgid.errors import ConfigError, ModelError, OutputError, RunError
from vgid.formats import compared, convert_to_gguf
from vgid.model_card import write_card
from vgid.models.adapters import attach_lora
from vgid.models.checkpoints import tensor_headers
from vgid.models.export import FAILED, save_adapter
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.quantisation import is_quantised
from vgid.settings import AdapterConfig
from vgid.synthetic.tiny import tiny_path


@pytest.fixture
def adapter(random_folder: Path, tmp_path: Path) -> Path:
    return made(random_folder, tmp_path / "run" / "adapter", AdapterConfig(rank=4))


def made(base: Path, out: Path, config: AdapterConfig) -> Path:
    save_adapter(shaken(attach_lora(load_model(base).model, config, seed=0)), out)
    return out


def rewritten(adapter: Path, change: dict[str, torch.Tensor]) -> None:
    save_file(change, adapter / "adapter_model.safetensors", metadata={"format": "pt"})


# -- export ---------------------------------------------------------------------------------------------------------------


def test_a_merged_adapter_answers_as_base_and_adapter(random_folder: Path, adapter: Path) -> None:
    out = adapter.parent / "merged"
    write_card(adapter, "owner/base", "vgid", [], rows={"forget": 1})
    export_command(str(random_folder), adapter, out, merge=True)
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers" and "1 forget rows" in card.text and "adapter alone" not in card.text
    merged, both, base = load_model(out), load_model(random_folder, adapter=adapter), load_model(random_folder)
    batch = base.encoder.batch([example(1), example(2, image=False)])
    with torch.no_grad():
        expected = answer_logits(both.model, batch)
        assert torch.allclose(answer_logits(merged.model, batch), expected, atol=1e-4)
        assert not torch.allclose(answer_logits(base.model, batch), expected, atol=1e-2)
    report = verify_command(adapter.parent, None, [])
    assert report["same_answers"] == 1.0 and report["largest_difference"] < 1e-3 and report["compared_on"] == 16
    assert report["tensors"] == 2 * 35 and set(report["exports"]) == {"merged", "adapter"} and report["base"] == str(random_folder)


def test_without_merge_the_adapter_is_copied(random_folder: Path, adapter: Path, tmp_path: Path) -> None:
    export_command(str(random_folder), adapter, tmp_path / "copy", merge=False)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert verify_command(tmp_path / "copy", str(random_folder), [])["same_answers"] is None
    with pytest.raises(OutputError, match="not empty"):
        export_command(str(random_folder), adapter, tmp_path / "copy", merge=True)
    write_card(adapter, "owner/base", "vgid", [], rows={"forget": 1})
    export_command(str(random_folder), adapter, tmp_path / "with card", merge=False)
    assert (tmp_path / "with card" / "README.md").read_bytes() == (adapter / "README.md").read_bytes()


def test_weights_that_are_not_the_models_are_not_copied(random_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They may be those of the model that knows."""
    model = Path(shutil.copytree(random_folder, tmp_path / "model"))
    others = ("pytorch_model.bin", "model-00001-of-00002.safetensors", "optimizer.pt")
    for name in others:
        (model / name).write_bytes((random_folder / "model.safetensors").read_bytes())
    export_command(str(model), None, tmp_path / "out", merge=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in random_folder.iterdir()}
    assert all(name in caplog.text for name in others)
    sharded = load_model(random_folder)
    sharded.model.save_pretrained(tmp_path / "sharded", max_shard_size="5MB")
    sharded.processor.save_pretrained(tmp_path / "sharded")
    export_command(str(tmp_path / "sharded"), None, tmp_path / "shards", merge=False)
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {path.name for path in (tmp_path / "sharded").iterdir()}
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1


def test_a_checkpoint_in_half_precision_stays_one(random_folder: Path, tmp_path: Path) -> None:
    half = load_model(random_folder, dtype=torch.bfloat16)
    half.model.save_pretrained(tmp_path / "half")
    half.processor.save_pretrained(tmp_path / "half")
    adapter = made(tmp_path / "half", tmp_path / "run" / "adapter", AdapterConfig(rank=4))
    export_command(str(tmp_path / "half"), adapter, tmp_path / "run" / "merged", merge=True)
    weights = load_file(tmp_path / "run" / "merged" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


# -- what does not fit ----------------------------------------------------------------------------------------------------


def test_renamed_tensors_are_an_error(random_folder: Path, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    rewritten(adapter, {name.replace(".layers.", ".blocks."): value for name, value in tensors.items()})
    for load in (
        lambda: load_model(random_folder, adapter=adapter),
        lambda: verify_command(adapter, None, []),
        lambda: export_command(str(random_folder), adapter, adapter.parent / "merged", merge=True),
    ):
        with pytest.raises(ModelError, match=r"(?s)do not match.*expected: 70 tensors.*found: 70 that fit nowhere, 70 that are missing"):
            load()
    assert not (adapter.parent / "merged").exists()


def test_missing_tensors_and_other_models_are_errors(random_folder: Path, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    rewritten(adapter, dict(list(tensors.items())[2:]))
    with pytest.raises(ModelError, match="0 that fit nowhere, 2 that are missing"):
        load_model(random_folder, adapter=adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["nothing"]}))
    with pytest.raises(ModelError, match="the adapter does not fit the model"):
        load_model(random_folder, adapter=adapter)


def test_a_checkpoint_without_some_weights_is_an_error(random_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(random_folder, tmp_path / "merged")
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    lost = next(name for name in weights if "down_proj" in name)
    save_file({n: v for n, v in weights.items() if n != lost}, tmp_path / "merged" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"(?s)lacks weights.*none for 1 of them, .*down_proj"):
        verify_command(tmp_path, None, [])


def test_a_merged_model_that_is_not_the_adapter_s_is_found(random_folder: Path, adapter: Path) -> None:
    shutil.copytree(random_folder, adapter.parent / "merged")
    with pytest.raises(RunError, match="the merged model does not answer as the trained one"):
        verify_command(adapter.parent, None, [])


def test_a_merged_model_with_another_vocabulary_is_named(random_folder: Path, adapter: Path) -> None:
    """Only an adapter of the embeddings may change their shape."""
    model = load_model(random_folder).model
    model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + 3)
    model.save_pretrained(adapter.parent / "merged")
    load_model(random_folder).processor.save_pretrained(adapter.parent / "merged")
    with pytest.raises(RunError, match=r"(?s)the merged checkpoint is not whole.*embed_tokens\.weight: .* in the base"):
        verify_command(adapter.parent, None, [])


def test_one_model_at_a_time_is_held(random_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_command(str(random_folder), adapter, adapter.parent / "merged", merge=True)
    held: list[torch.nn.Module] = []

    def load(*places: Path, **options: Any) -> LoadedModel:
        assert all(parameter.numel() == 0 for model in held for parameter in model.parameters())
        loaded = load_model(*places, **options)
        held.append(loaded.model)
        return loaded

    monkeypatch.setattr("vgid.deployment.load_model", load)
    assert verify_command(adapter.parent, None, [])["same_answers"] == 1.0 and len(held) == 2


def test_folders_without_exports_and_adapters_without_base(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder holds no export"):
        verify_command(tmp_path / "run" / "nothing", None, [])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="give the base with --base"):
        verify_command(adapter, None, [])


# -- how to serve it ------------------------------------------------------------------------------------------------------


def test_adapters_outside_the_language_model_get_options_and_a_warning(random_folder: Path, adapter: Path, tmp_path: Path) -> None:
    plain = verify_command(adapter, None, [])
    assert "--enable-tower-connector-lora" not in plain["vllm"] and "--max-lora-rank 8" in plain["vllm"]
    assert plain["warnings"] == ["an adapter that can be removed is not deletion: the base still knows everything; deploy the merged model"]
    seeing = made(random_folder, tmp_path / "seeing", AdapterConfig(rank=4, scope=("language", "projector", "vision")))
    report = verify_command(seeing, None, [])
    assert report["vllm"][:2] == ["--enable-lora", "--enable-tower-connector-lora"] and "--max-lora-rank 4" in report["sglang"]
    assert "20 adapted modules are outside the language model" in report["warnings"][1]


def test_an_adapter_that_changes_nothing_gets_a_warning(random_folder: Path, tmp_path: Path) -> None:
    save_adapter(attach_lora(load_model(random_folder).model, AdapterConfig(), seed=0), tmp_path / "adapter")
    assert any("changes nothing" in warning for warning in verify_command(tmp_path, None, [])["warnings"])


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["embed_tokens"]}, {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5]}}]
)
def test_an_adapter_of_embeddings_gets_no_such_warning(random_folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """It changes the model whatever its B matrices are."""
    get_peft_model(load_model(random_folder).model, LoraConfig(**settings)).save_pretrained(tmp_path)
    assert not any("changes nothing" in warning for warning in verify_command(tmp_path, str(random_folder), [])["warnings"])


# -- number formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "dtype"), [("bf16", "BF16"), ("fp16", "F16"), ("fp32", "F32")])
def test_another_precision_keeps_all_tensors(random_folder: Path, adapter: Path, to: str, dtype: str) -> None:
    """A tensor that no class builds is carried over too: 108 in, 108 out."""
    base = adapter.parent / "base"
    shutil.copytree(random_folder, base)
    tensors = load_file(base / "model.safetensors")
    extra = {"mtp.norm.weight": torch.ones(3), "mtp.ids": torch.arange(3)}
    save_file({**tensors, **extra}, base / "model.safetensors", {"format": "pt"})
    write_card(adapter, "owner/base", "vgid", [], rows={"forget": 1})
    report = export_command(str(base), adapter, adapter.parent / to, merge=False, to=to, forget=[example(1)], retain=[example(2)])
    card = ModelCard.load(adapter.parent / to / "README.md")
    assert card.data.base_model == "owner/base" and f"## Number format: {to}" in card.text and "Of 2 questions, " in card.text
    before, after = tensor_headers(base), tensor_headers(adapter.parent / to)
    assert len(before) == 108 and {name: header.shape for name, header in before.items()} == {
        name: header.shape for name, header in after.items()
    }
    assert {header.dtype for name, header in after.items() if name not in extra} == {dtype}
    assert report["forget_rows"] == 1 and report["rows"] == 2 and report["facts_back"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("to", ["8bit", "4bit"])
def test_few_bits_are_written_asked_and_loaded_again(to: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    report = export_command(str(tiny_path()), None, tmp_path / to, merge=False, to=to)
    loaded = load_model(tmp_path / to, dtype="auto")
    assert is_quantised(loaded.model) and report["same_answers"] >= 0.5 and report["facts_back"] == 0
    with pytest.raises(ModelError, match="the weights are quantised already"):
        load_model(tmp_path / to, quantise="4bit")


def test_facts_that_come_back_mark_the_export(tmp_path: Path) -> None:
    """Of ten rows two are answered that were not (0.2 > 0.1); one (0.1) is only a warning."""
    rows = [example(n, answer="Oslo.") for n in range(10)]
    for back, fails in ((1, False), (2, True)):
        said = [["no"] * 10, ["Oslo"] * back + ["no"] * (10 - back)]
        out = tmp_path / str(back)
        out.mkdir()
        if fails:
            with pytest.raises(RunError, match=r"(?s)forgotten facts came back.*found: 2"):
                compared(*said, rows, 10, out, "fp16")
        else:
            assert compared(*said, rows, 10, out, "fp16")["facts_back"] == 1
        assert (out / FAILED).is_file() == fails


def test_formats_that_cannot_be_written_here(random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such format"):
        export_command(str(random_folder), None, tmp_path / "out", merge=False, to="int3")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)the converter to GGUF is not there.*git clone"):
        export_command(str(random_folder), None, tmp_path / "out", merge=False, to="gguf")
    (tmp_path / "convert_hf_to_gguf.py").write_text("import sys; sys.exit('Model LlavaForConditionalGeneration is not supported')")
    monkeypatch.setattr("vgid.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"(?s)could not be asked, so it is not written.*llama-server"):
        export_command(str(random_folder), None, tmp_path / "out", merge=False, to="gguf")
    with pytest.raises(ConfigError, match=r"(?s)cannot convert this model.*llava: Model Llava.* is not supported"):
        convert_to_gguf(tmp_path / "convert_hf_to_gguf.py", random_folder, tmp_path / "out")
    monkeypatch.setattr("vgid.formats.server_command", list)
    monkeypatch.setattr("vgid.deployment.load_model", lambda *_, **__: pytest.fail("the model is loaded before"))
    with pytest.raises(ConfigError, match="cannot convert this model"):
        export_command(str(random_folder), None, tmp_path / "out", merge=False, to="gguf")
    (tmp_path / "convert_hf_to_gguf.py").write_text("import no_such_package")
    with pytest.raises(ConfigError, match=r"(?s)lacks a package.*no_such_package"):
        convert_to_gguf(tmp_path / "convert_hf_to_gguf.py", random_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- weights that are no numbers ------------------------------------------------------------------------------------------


def poisoned(folder: Path, value: float, file: str = "model.safetensors") -> Path:
    tensors = load_file(folder / file)
    name = next(each for each in tensors if "q_proj" in each)
    tensors[name].view(-1)[3] = value
    save_file(tensors, folder / file, {"format": "pt"})
    return folder


def test_weights_that_are_no_numbers_are_never_exported(random_folder: Path, adapter: Path, tmp_path: Path) -> None:
    bad = poisoned(Path(shutil.copytree(random_folder, tmp_path / "bad")), float("nan"))
    bad_adapter = poisoned(Path(shutil.copytree(adapter, tmp_path / "bad-adapter")), float("inf"), "adapter_model.safetensors")
    out = tmp_path / "out"
    for call in (
        lambda: export_command(str(bad), None, out, merge=False),
        lambda: export_command(str(bad), adapter, out, merge=True),
        lambda: export_command(str(random_folder), bad_adapter, out, merge=True),
        lambda: export_command(str(random_folder), bad_adapter, out, merge=False),
        lambda: export_command(str(bad), None, out, merge=False, to="bf16"),
        lambda: verify_command(bad, None, []),
        lambda: verify_command(bad_adapter, str(random_folder), []),
    ):
        with pytest.raises(ModelError, match=r"(?s)a weight is not a finite number.*NaN or infinity in .*q_proj"):
            call()
        assert not out.exists()


def test_numbers_that_do_not_fit_the_precision_leave_nothing_behind(random_folder: Path, tmp_path: Path) -> None:
    """float16 ends at 65504."""
    large = poisoned(Path(shutil.copytree(random_folder, tmp_path / "large")), 1e5)
    with pytest.raises(ModelError, match="a weight is not a finite number"):
        export_command(str(large), None, tmp_path / "out", merge=False, to="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_logits_that_are_no_numbers_are_found(random_folder: Path, tmp_path: Path) -> None:
    """Every weight is finite, and their product is not."""
    folder = Path(shutil.copytree(random_folder, tmp_path / "merged"))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {n: v * 1e38 if "lm_head" in n or "norm" in n else v for n, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(RunError, match="the merged model's logits are not finite numbers"):
        verify_command(tmp_path, None, [])
    for to in (None, "fp32"):
        with pytest.raises(RunError, match="the exported model's logits are not finite numbers"):
            export_command(str(folder), None, tmp_path / "out", merge=False, to=to)
    adapter = made(random_folder, tmp_path / "adapter", AdapterConfig(rank=4))
    for merge in (True, False):
        with pytest.raises(RunError, match="the exported model's logits are not finite numbers"):
            export_command(str(folder), adapter, tmp_path / "out", merge=merge)
    assert not (tmp_path / "out").exists()


# -- the command line -----------------------------------------------------------------------------------------------------


def test_export_and_verify_on_the_command_line(vgid: Vgid, random_folder: Path, adapter: Path, tmp_path: Path) -> None:
    out = adapter.parent / "merged"
    run = vgid("export", "--merge", "--model", random_folder, "--adapter", adapter, "--out", out)
    assert run.returncode == 0 and (out / "model.safetensors").is_file(), run.stderr
    write_examples(tmp_path / "probes.jsonl", [example(n) for n in range(3)])
    verified = vgid("verify-export", adapter.parent, "--data", tmp_path / "probes.jsonl")
    assert verified.returncode == 0, verified.stderr
    assert "100% of 3 answers the same" in verified.stdout and "all 70 tensors in place" in verified.stdout
    assert "is not deletion" in verified.stdout and "--enable-lora" in verified.stdout and "Anna" not in verified.stdout
