"""Models: what is refused, where parts are found, what an adapter touches, and what is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.errors import ModelError, RunError
from vgid.models.adapters import adapted_modules, attach_lora, reference
from vgid.models.checkpoints import differences, read_tensors, tensor_headers
from vgid.models.export import FAILED, merge_adapter, outputs_of, release, save_adapter, save_checkpoint, verify_export
from vgid.models.forward import all_logits, answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.structure import inspect_model, unfreeze
from vgid.settings import AdapterConfig


def shaken(model: torch.nn.Module, size: float = 1.0) -> torch.nn.Module:
    """An adapter that does something: its B matrices start at zero."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = (size * 0.05 * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
    return model


# -- loading ----------------------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_model(tmp_path / "nothing")


def test_folder_without_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder holds no model"):
        load_model(tmp_path)


def test_folder_without_processor(random_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(random_folder / name, tmp_path / name)
    with pytest.raises(ModelError, match="the model folder has no processor"):
        load_model(tmp_path)


def test_pickle_is_refused(random_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(random_folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"(?s)pickle format.*pytorch_model.bin"):
        load_model(tmp_path / "m")


def test_adapter_folder_must_hold_one(random_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder holds no adapter"):
        load_model(random_folder, adapter=tmp_path)


# -- structure ----------------------------------------------------------------------------------------------------------


def test_parts_are_found_and_cover_everything(random_model: LoadedModel) -> None:
    structure = inspect_model(random_model.model)
    assert structure.language == ("model.language_model", "lm_head")
    assert structure.projector == ("model.multi_modal_projector",) and structure.vision == ("model.vision_tower",)
    assert {structure.part_of(name) for name, _ in random_model.model.named_parameters()} == {"language", "projector", "vision"}


@pytest.mark.parametrize("scope", [("language",), ("projector",), ("vision",), ("language", "projector")])
def test_lora_goes_to_the_parts_in_scope(random_model: LoadedModel, scope: tuple[str, ...]) -> None:
    structure = inspect_model(random_model.model)
    linear = {n for n, m in random_model.model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    model = attach_lora(random_model.model, AdapterConfig(scope=scope), seed=0)  # type: ignore[arg-type]
    assert set(adapted_modules(model)) == {name for name in linear if structure.part_of(name) in scope}
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)


def test_lora_scope_that_matches_nothing(random_model: LoadedModel) -> None:
    with pytest.raises(ModelError, match="the LoRA scope matches no linear layer"):
        attach_lora(random_model.model, AdapterConfig(scope=()), seed=0)


def test_lora_starts_from_its_seed(random_folder: Path) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        model = attach_lora(load_model(random_folder).model, AdapterConfig(), seed=seed)
        return [p for name, p in model.named_parameters() if "lora_A" in name]

    assert all(map(torch.equal, weights(1), weights(1))) and not torch.equal(weights(1)[0], weights(2)[0])


def test_unfreeze_trains_parts_and_nothing_else(random_model: LoadedModel) -> None:
    unfreeze(random_model.model, ("projector",))
    trained = [name for name, p in random_model.model.named_parameters() if p.requires_grad]
    assert trained and all("multi_modal_projector" in name for name in trained)
    with pytest.raises(ModelError, match="there is nothing to train"):
        unfreeze(random_model.model, ())


# -- forward --------------------------------------------------------------------------------------------------------------


def test_answer_logits_are_the_full_logits_at_answer_positions(random_model: LoadedModel, mixed: list[Example]) -> None:
    batch = Encoder(random_model.processor).batch(mixed)
    with torch.no_grad():
        full = all_logits(random_model.model, batch)
        fast = answer_logits(random_model.model, batch)
    width = batch.model_inputs["input_ids"].shape[1]
    slow = full[batch.answers.rows * width + batch.answers.positions]
    assert torch.allclose(fast, slow, atol=1e-5) and fast.shape == (len(batch.answers.targets), 2048)
    assert not random_model.model.lm_head._forward_pre_hooks


def test_padding_and_neighbours_change_nothing(random_model: LoadedModel, mixed: list[Example]) -> None:
    encoder = Encoder(random_model.processor)
    with torch.no_grad():
        together = answer_logits(random_model.model, encoder.batch(mixed))
        alone = torch.cat([answer_logits(random_model.model, encoder.batch([row])) for row in mixed])
    assert torch.allclose(together, alone, atol=1e-4)


def test_gradients_reach_the_scope_only(random_model: LoadedModel, mixed: list[Example]) -> None:
    model = shaken(attach_lora(random_model.model, AdapterConfig(), seed=0))
    answer_logits(model, Encoder(random_model.processor).batch(mixed)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == ("lora_" in name), name


# -- the base without its adapter -----------------------------------------------------------------------------------------


def test_adapter_off_is_the_untouched_base_bit_by_bit(random_folder: Path, mixed: list[Example]) -> None:
    plain, loaded = load_model(random_folder), load_model(random_folder)
    batch = Encoder(plain.processor).batch(mixed)
    model = shaken(attach_lora(loaded.model, AdapterConfig(), seed=0)).train()
    with torch.no_grad():
        expected = answer_logits(plain.model, batch)
        with reference(model) as base:
            assert torch.equal(answer_logits(base, batch), expected)
        assert not torch.allclose(answer_logits(model, batch), expected, atol=1e-3)
    assert model.training


def test_no_reference_without_adapter_or_copy(random_model: LoadedModel) -> None:
    with pytest.raises(ModelError, match="the base is not available"), reference(random_model.model):
        pass


# -- export ---------------------------------------------------------------------------------------------------------------


def test_adapter_and_merged_reload_with_stock_libraries(random_folder: Path, tmp_path: Path, mixed: list[Example]) -> None:
    loaded = load_model(random_folder)
    model = shaken(attach_lora(loaded.model, AdapterConfig(scope=("language", "projector")), seed=0)).eval()
    batch = Encoder(loaded.processor).batch(mixed)
    with torch.no_grad():
        trained = all_logits(model, batch)
        save_adapter(model, tmp_path / "adapter")
        save_checkpoint(model, loaded.processor, tmp_path / "merged")
        assert torch.equal(all_logits(model, batch), trained)  # left as it was
        merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        stock = PeftModel.from_pretrained(
            AutoModelForImageTextToText.from_pretrained(random_folder, dtype=torch.float32), tmp_path / "adapter"
        )
        assert torch.allclose(all_logits(merged.eval(), batch), trained, atol=1e-4)
        assert torch.allclose(all_logits(stock.eval(), batch), trained, atol=1e-5)
    outputs = outputs_of(model, loaded.processor, mixed)
    release(model)
    assert sum(p.numel() for p in model.parameters()) == 0
    written = verify_export(outputs, torch.device("cpu"), tmp_path, mixed)
    with torch.no_grad():
        assert torch.allclose(all_logits(written.model, batch), trained, atol=1e-4)
    assert load_model(random_folder, adapter=tmp_path / "adapter").model.peft_config


def test_an_export_that_answers_differently_is_found(random_folder: Path, tmp_path: Path, mixed: list[Example]) -> None:
    loaded = load_model(random_folder)
    save_checkpoint(loaded.model, loaded.processor, tmp_path / "merged")  # without the adapter
    model = shaken(attach_lora(loaded.model, AdapterConfig(), seed=0))
    with pytest.raises(RunError, match=r"(?s)the merged model does not answer as the trained one.*merge it again: vgid export"):
        verify_export(outputs_of(model, loaded.processor, mixed), torch.device("cpu"), tmp_path, mixed)
    marked = json.loads((tmp_path / "merged" / FAILED).read_text())
    assert marked["kl"] > marked["allowed"] >= 8 * marked["floor"] and (tmp_path / "merged" / "model.safetensors").is_file()


def test_an_adapter_file_that_is_not_what_was_trained_is_found(random_folder: Path, tmp_path: Path, mixed: list[Example]) -> None:
    loaded = load_model(random_folder)
    model = attach_lora(loaded.model, AdapterConfig(), seed=0)
    save_adapter(model, tmp_path / "adapter")
    save_checkpoint(shaken(model), loaded.processor, tmp_path / "merged")
    with pytest.raises(RunError, match="the adapter's file does not hold the trained weights"):
        verify_export(outputs_of(model, loaded.processor, mixed), torch.device("cpu"), tmp_path, mixed)


def test_what_no_class_builds_is_found_in_an_older_layout(random_folder: Path, tmp_path: Path) -> None:
    """transformers reports such tensors by the names that they would have in the present layout."""
    base = tmp_path / "base"
    shutil.copytree(random_folder, base)

    def older(name: str) -> str:
        name = name.replace("model.language_model.", "language_model.model.")
        return f"language_model.{name}" if name.startswith("lm_head") else name.removeprefix("model.")

    tensors = {older(name): value for name, value in load_file(base / "model.safetensors").items()}
    extra = ["language_model.model.more.weight", "language_model.mtp.layers.0.weight", "mtp.norm.weight", "vision_tower.more.weight"]
    tensors |= {name: torch.full((2,), float(n)) for n, name in enumerate(extra)}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    loaded = load_model(base)
    assert loaded.unbuilt == tuple(extra)
    save_checkpoint(shaken(attach_lora(loaded.model, AdapterConfig(), seed=0)), loaded.processor, tmp_path / "merged", loaded)
    written = read_tensors(tmp_path / "merged", extra)
    assert [written[name].tolist() for name in extra] == [[float(n)] * 2 for n in range(4)]
    assert differences(tensor_headers(base), tensor_headers(tmp_path / "merged")) == []
    assert load_model(tmp_path / "merged").unbuilt == tuple(extra)


def test_what_no_class_builds_and_side_files_are_carried_over(random_folder: Path, tmp_path: Path) -> None:
    """Two tensors of a head for multi-token prediction: 108 in, 108 out, unchanged."""
    base = tmp_path / "base"
    shutil.copytree(random_folder, base)
    tensors = load_file(base / "model.safetensors")
    extra = {"mtp.layers.0.weight": torch.arange(6.0).reshape(2, 3), "mtp.norm.weight": torch.ones(3, dtype=torch.bfloat16)}
    save_file({**tensors, **extra}, base / "model.safetensors", {"format": "pt"})
    (base / "LICENSE").write_text("do what you like")
    (base / "README.md").write_text("about the base")
    loaded = load_model(base)
    assert loaded.unbuilt == tuple(extra)
    model = shaken(attach_lora(loaded.model, AdapterConfig(), seed=0))
    save_checkpoint(model, loaded.processor, tmp_path / "merged", loaded)
    before, after = tensor_headers(base), tensor_headers(tmp_path / "merged")
    assert len(before) == len(tensors) + 2 and differences(before, after) == []
    written = read_tensors(tmp_path / "merged", extra)
    assert all(torch.equal(written[name], value) for name, value in extra.items())
    assert (tmp_path / "merged" / "LICENSE").is_file() and not (tmp_path / "merged" / "README.md").exists()
    merge_adapter(str(base), saved(model, tmp_path / "adapter"), tmp_path / "again")
    assert differences(before, tensor_headers(tmp_path / "again")) == []
    after.pop("mtp.norm.weight")
    assert differences(before, after) == ["mtp.norm.weight: missing in the merged model"]


def saved(model: Any, folder: Path) -> Path:
    """The adapter, written to a folder."""
    save_adapter(model, folder)
    return folder


def test_an_update_that_rounding_swallows_is_written_in_float32(
    random_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights near 0.02 in bf16 have steps of 1e-4: an update of 1e-6 is lost wholly, one of 1e-2 is not."""
    for size, dtype in ((1e-5, torch.float32), (1.0, torch.bfloat16)):
        loaded = load_model(random_folder, dtype=torch.bfloat16)
        model = shaken(attach_lora(loaded.model, AdapterConfig(), seed=0), size)
        lost = save_checkpoint(model, loaded.processor, tmp_path / f"{size}", loaded)
        headers = tensor_headers(tmp_path / f"{size}")
        assert {header.dtype for header in headers.values()} == {"F32" if dtype == torch.float32 else "BF16"}
        assert 0 <= lost.share < 0.5 and lost.worst[1] == max(lost.layers.values()) and len(lost.layers) == len(adapted_modules(model))
        assert load_model(tmp_path / f"{size}", dtype="auto").model.dtype == dtype  # as servers load it
    assert "swallows" in caplog.text and caplog.text.count("written in float32") == 1
