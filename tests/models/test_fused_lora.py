"""LoRA as one operation, against PEFT's own forward function."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vgid.models.fused_lora import fused

ADAPTERS: dict[str, dict[str, object]] = {
    "first": {"r": 3, "lora_alpha": 6, "target_modules": ["0", "2"]},
    "second": {"r": 2, "lora_alpha": 1, "target_modules": ["0", "2"]},
}


def network(**more: object) -> nn.Sequential:
    """Two linear layers, frozen, with two adapters each; no matrix is zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4, bias=False)).requires_grad_(False)
    for name, settings in ADAPTERS.items():
        inject_adapter_in_model(LoraConfig(**settings, **more), model, name)  # type: ignore[arg-type]
    for layer in (model[0], model[2]):
        layer.set_adapter(["first", "second"])
    for parameter in trained(model):
        nn.init.normal_(parameter)
    return model


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def outcome(model: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Outputs, and gradients of inputs and of all adapters."""
    x = x.clone().requires_grad_(True)
    out = model(x)
    model.zero_grad()
    out.float().square().sum().backward()
    return [out, x.grad, *(parameter.grad for name, parameter in model.named_parameters() if "lora_" in name)]


def as_it_is(model: nn.Module) -> None:
    """Both adapters learn."""


def frozen_first(model: nn.Module) -> None:
    """Of the first adapter the first matrix is frozen, as by narrow updates."""
    for layer in (model[0], model[2]):
        layer.lora_A["first"].weight.requires_grad_(False)


def only_second(model: nn.Module) -> None:
    """The second adapter learns alone, as the adversary does."""
    for layer in (model[0], model[2]):
        for matrices in (layer.lora_A, layer.lora_B):
            matrices["first"].weight.requires_grad_(False)


def off(model: nn.Module) -> None:
    """All adapters are off, as for the base."""
    for layer in (model[0], model[2]):
        layer.enable_adapters(False)


@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("change", [as_it_is, frozen_first, only_second, off])
def test_outputs_and_gradients_are_those_of_peft(change: Callable[[nn.Module], None], reduced: bool) -> None:
    model, x = network(), torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    change(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        if change is off:
            expected = model(x)
            with fused(model):
                assert torch.equal(model(x), expected)
            return
        expected = outcome(model, x)
        with fused(model):
            found = outcome(model, x)
    within = 0.1 if reduced else 1e-5
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == other.dtype and (one - other).abs().max() <= within * other.abs().max()


def test_a_matrix_that_an_optimizer_has_changed_is_cast_anew() -> None:
    model, x = network(), torch.ones(1, 5)
    with fused(model), torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        before.float().sum().backward()
        torch.optim.AdamW(trained(model), lr=0.5, fused=True).step()
        after = model(x)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        expected = model(x)
    assert not torch.allclose(before, after) and (after - expected).abs().max() <= 0.05 * expected.abs().max()


def test_dropout_and_a_layer_that_is_trained_itself_are_left_to_peft() -> None:
    dropping, x = network(lora_dropout=0.5), torch.ones(4, 5)

    def drawn() -> Tensor:
        torch.manual_seed(3)
        return dropping(x)

    with fused(dropping):
        inside = drawn()
    assert torch.equal(inside, drawn())
    whole = network()
    whole[0].base_layer.weight.requires_grad_(True)
    with fused(whole):
        whole(x).sum().backward()
    assert whole[0].base_layer.weight.grad is not None and "forward" not in vars(whole[2])


class Products(TorchDispatchMode):
    """Names the operations that start kernels: views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ not in ("view", "_unsafe_view", "t", "permute", "transpose", "detach"):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_there_are_no_more_operations_than_products() -> None:
    """One adapter: W x, A x and B A x; and gradients of A x, of x by both ways, of A and of B."""
    model = nn.Sequential(nn.Linear(5, 7)).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["0"]), model, "first")
    x, gradient = torch.randn(2, 5, requires_grad=True), torch.ones(2, 7)
    with fused(model), Products() as found:
        torch.autograd.grad(model(x), [x, *trained(model)], gradient)
    assert found.names == ["addmm", "mm", "addmm_", "mm", "mm", "addmm_", "addmm", "addmm"]
