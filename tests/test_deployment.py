"""Exports: written in one go, proved with stock libraries, and refused where an adapter does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import example
from tests.models.test_models import shaken
from tests.test_cli import vgid
from vgid.data.writing import write_examples
from vgid.deployment import export_command, verify_command
from vgid.errors import ModelError, OutputError, RunError
from vgid.models.adapters import attach_lora
from vgid.models.export import save_adapter
from vgid.models.forward import answer_logits
from vgid.models.loading import load_model
from vgid.settings import AdapterConfig


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
    export_command(str(random_folder), adapter, out, merge=True)
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
    rewritten(adapter, {name.replace("model.language_model.", "language_model.model."): value for name, value in tensors.items()})
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


# -- the command line -----------------------------------------------------------------------------------------------------


def test_export_and_verify_on_the_command_line(random_folder: Path, adapter: Path, tmp_path: Path) -> None:
    out = adapter.parent / "merged"
    run = vgid("export", "--merge", "--model", random_folder, "--adapter", adapter, "--out", out)
    assert run.returncode == 0 and (out / "model.safetensors").is_file(), run.stderr
    write_examples(tmp_path / "probes.jsonl", [example(n) for n in range(3)])
    verified = vgid("verify-export", adapter.parent, "--data", tmp_path / "probes.jsonl")
    assert verified.returncode == 0, verified.stderr
    assert "100% of 3 answers the same" in verified.stdout and "all 70 tensors in place" in verified.stdout
    assert "is not deletion" in verified.stdout and "--enable-lora" in verified.stdout and "Anna" not in verified.stdout
