"""Cheaper steps are the same steps: checkpointed, compiled, and on a base in 4 bits."""

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import example
from tests.methods.table import forget_rows, retain_rows
from vgid.config import load_config
from vgid.data.packing import Style
from vgid.errors import ConfigError, ModelError
from vgid.methods.base import Context, StepBatch
from vgid.models import quantisation
from vgid.models.adapters import SecondAdapter, attach_lora
from vgid.models.forward import answer_logits, several_states
from vgid.models.loading import LoadedModel, load_model
from vgid.models.memory_saving import checkpointing, compiled
from vgid.models.structure import decoder_layers
from vgid.settings import AdapterConfig, TrainingConfig
from vgid.training.fit import fit
from vgid.training.gradient_step import GradientStep
from vgid.unlearning import train_and_export

QUICK = ["training.steps=3", "training.forget_batch=2", "training.retain_batch=2", "method.answers=[recorded]", "validation.every=0"]
ROWS = [example(1), example(2, image=False), example(3, answer="Oslo."), example(4)]


def trained(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    model = fit(load_model(folder), ROWS[:2], ROWS[2:], load_config(None, [*QUICK, *overrides])).loaded.model
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("overrides", [(), ("adapter.dropout=0.2",), ("adapter.scope=[projector]",)], ids=str)
def test_checkpointing_changes_no_weight(random_folder: Path, overrides: tuple[str, ...]) -> None:
    plain, cheap = trained(random_folder, *overrides), trained(random_folder, "training.gradient_checkpointing=true", *overrides)
    assert plain.keys() == cheap.keys() and any(value.any() for name, value in cheap.items() if "lora_B" in name)
    assert all(torch.allclose(plain[name], cheap[name], atol=1e-6) for name in plain)


def test_checkpointing_is_undone(random_model: LoadedModel) -> None:
    model = attach_lora(random_model.model, AdapterConfig(), seed=0)
    layers = decoder_layers(random_model.model)
    with checkpointing(model):
        assert all(layer.gradient_checkpointing for layer in layers)
    assert len(layers) == 5 and not any(layer.gradient_checkpointing for layer in layers)


def test_a_model_without_checkpointing_is_refused(random_model: LoadedModel) -> None:
    random_model.model.supports_gradient_checkpointing = False
    with pytest.raises(ModelError, match=r"set training\.gradient_checkpointing=false"), checkpointing(random_model.model):
        pass


@pytest.mark.slow
def test_compiled_layers_change_no_weight(random_folder: Path) -> None:
    answers = ("method.adversary=null", "method.hidden_state_weight=0")
    plain, fast = trained(random_folder, *answers), trained(random_folder, "training.torch_compile=true", *answers)
    assert all(torch.allclose(plain[name], fast[name], atol=1e-4) for name in plain)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_default_s_losses_are_the_same_with_compiled_layers(random_folder: Path, checkpointed: bool) -> None:
    """With adversary and hidden states, four steps of three sizes, without PyTorch's last compiler, which takes minutes."""
    losses: list[list[float]] = []
    forget, retain = tuple(forget_rows()), tuple(retain_rows())
    for backend in (None, "aot_eager"):
        loaded = load_model(random_folder)
        model, method = attach_lora(loaded.model, AdapterConfig(), seed=0).train(), load_config().build_method()
        method.prepare(model, Context(loaded.encoder, forget, retain, 0, torch.device("cpu"), packing=Style(4)))
        step = GradientStep(model, method, TrainingConfig(), 0, lambda loss: loss.backward())
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        with checkpointing(model, checkpointed), compiled(model, backend is not None, backend or ""):
            losses.append([])
            for number in range(4):
                losses[-1].append(step.step(StepBatch(number, forget[: 2 + number % 3], retain[: 2 + number % 3])).total)
                optimizer.step()
                optimizer.zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and len(set(losses[0])) == 4


def test_hooks_and_a_second_adapter_are_met_in_compiled_layers(random_model: LoadedModel) -> None:
    """Hidden states are read by hooks that come after compiling, and an adapter is switched on within the layers."""
    del random_model.model.model.language_model.layers[2:]
    model = attach_lora(random_model.model, AdapterConfig(), seed=0).eval()
    layers, batch = decoder_layers(random_model.model), random_model.encoder.batch(ROWS[:1])
    second = SecondAdapter(
        model, "second", 2, 1.0, [name for name, _ in model.base_model.model.named_modules() if "layers.1.mlp.up" in name][:1]
    )
    ((_, out),) = second.weights().values()
    torch.nn.init.ones_(out)

    def seen() -> list[torch.Tensor]:
        found = []
        for context in (nullcontext(), second.active()):
            with torch.no_grad(), context:
                found += [answer_logits(model, batch), *several_states(model, batch, layers)]
        return found

    slow = seen()
    with compiled(model, backend="eager"):
        answer_logits(model, batch)
        fast = seen()
        assert ["forward" in vars(layer) for layer in layers] == [False, True]  # the first one stays as it is
    assert not any("forward" in vars(layer) for layer in layers)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(slow, fast, strict=True))
    assert (slow[2] - slow[5]).abs().max() > 1e-2  # behind the second layer the adapter shows


def test_compiled_layers_give_gradients_to_what_is_trained_now(random_model: LoadedModel) -> None:
    """The same adapters in every pass: first the second one learns, then the first."""
    del random_model.model.model.language_model.layers[2:]
    model = attach_lora(random_model.model, AdapterConfig(), seed=0)
    batch = random_model.encoder.batch(ROWS[:1])
    names = [name for name, _ in model.base_model.model.named_modules() if name.endswith("layers.1.mlp.up_proj")]
    second = SecondAdapter(model, "second", 2, 1.0, names)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))

    def gradients() -> list[list[float]]:
        found = []
        for context in (second.learning(), second.active(), nullcontext()):
            model.zero_grad()
            with context:
                answer_logits(model, batch).square().mean().backward()
            found.append([float(p.grad.norm()) if p.grad is not None else 0.0 for name, p in model.named_parameters() if ".1." in name])
        return found

    slow = gradients()
    with compiled(model, backend="aot_eager"):
        fast = gradients()
    assert all(one == pytest.approx(other, rel=1e-4) for one, other in zip(slow, fast, strict=True))
    assert slow[0] != slow[1] and any(slow[0]) and any(slow[1])


# -- 4 bits ---------------------------------------------------------------------------------------------------------------

bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def test_a_missing_package_is_named(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"(?s)few bits need a package that is not installed.*pip install \"vgid\[quant\]\""):
        load_model(random_folder, quantise="4bit")


@bitsandbytes
def test_the_decoder_alone_is_held_in_4_bits(random_folder: Path) -> None:
    kinds: dict[str, set[str]] = {}
    for name, module in load_model(random_folder, quantise="4bit").model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kinds.setdefault(type(module).__name__, set()).add(name.split(".")[1] if "." in name else name)
    assert kinds == {"Linear4bit": {"language_model"}, "Linear": {"vision_tower", "multi_modal_projector", "lm_head"}}


@bitsandbytes
def test_gradients_pass_a_base_in_4_bits_after_it_has_answered(random_folder: Path) -> None:
    """Compared with a plain model that holds the same rounded weights."""
    from bitsandbytes.functional import dequantize_4bit

    small, plain = load_model(random_folder, quantise="4bit"), load_model(random_folder)
    for name, module in small.model.named_modules():
        if type(module).__name__ == "Linear4bit":
            plain.model.get_submodule(name).weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state)
    grads: list[dict[str, torch.Tensor]] = []
    for loaded in (small, plain):
        model: Any = attach_lora(loaded.model, AdapterConfig(rank=4), seed=0)
        batch = loaded.encoder.batch(ROWS)
        with torch.no_grad():
            answer_logits(model.eval(), batch)  # on some CPUs bitsandbytes repacks weights here
        answer_logits(model.train(), batch).square().mean().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.allclose(grads[0][name], grads[1][name], rtol=1e-3, atol=1e-6) for name in grads[0])


@bitsandbytes
def test_what_is_written_is_full_precision(random_folder: Path, tmp_path: Path) -> None:
    config = load_config(None, [*QUICK, "adapter.quantise=4bit"])
    train_and_export(load_model(random_folder, quantise="4bit"), ROWS[:2], ROWS[2:], config, out=tmp_path)
    merged, base = load_model(tmp_path / "merged").model.state_dict(), load_model(random_folder).model.state_dict()
    assert merged.keys() == base.keys()
    changed = {name.rsplit(".", 2)[-2] for name in base if not torch.equal(merged[name], base[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_model_and_configuration_must_agree(random_model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"(?s)not held as the configuration says.*a model in full"):
        fit(random_model, ROWS[:2], ROWS[2:], load_config(None, ["adapter.quantise=4bit"]))
