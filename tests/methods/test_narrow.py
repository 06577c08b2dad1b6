"""Narrow updates: directions by hand, and on a model against inputs collected row by row."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.conftest import example
from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.data.neutral import NEUTRAL
from vgid.methods.vgid import narrow as module
from vgid.methods.vgid.narrow import contrast, left_singular_vectors, narrow
from vgid.models.adapters import attach_lora
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.settings import AdapterConfig

from .table import Row


def test_directions_by_hand() -> None:
    forget = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    retain = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    # C_r = diag(0, 1), its mean variance 1/2; with a ridge of 2 of it, diag(1, 2): the first axis is best.
    # A mean square of 9 / (3 * 2) for vectors of forget rows: 9 a^2 / 2 = 3/2.
    found = contrast(forget, retain, 3, ridge=2.0)
    assert torch.allclose(found.abs(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]) / 3**0.5, atol=1e-6)


def test_what_both_sides_share_is_not_read() -> None:
    shared, own = torch.tensor([5.0, 5.0, 0.0]), torch.tensor([0.0, 0.0, 0.1])
    (direction,) = contrast((shared + own)[None].repeat(4, 1), shared[None].repeat(4, 1), 1, ridge=1e-6)
    assert abs(direction @ shared) < 1e-2 * abs(direction @ own)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)], ids=str)
def test_large_matrices_are_decomposed_by_their_gram_matrix(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (slow, values), (fast, found) = (left_singular_vectors(matrix, directly) for directly in (9, 0))
    assert torch.allclose(values, found, rtol=1e-5)
    assert torch.allclose((slow * fast).sum(0).abs(), torch.ones(min(shape)), atol=1e-5)  # the same up to the sign


@pytest.fixture
def rows() -> tuple[list[Example], list[Example]]:
    other = [replace(example(n, image=n > 4), question=f"Where does Mona Urban, number {n}, live?") for n in range(3, 7)]
    return [example(n, image=n > 0) for n in range(3)], other


@pytest.mark.parametrize("memory", [16, 1], ids="room for {} rows".format)
def test_an_adapter_reads_what_forget_rows_have(random_model: LoadedModel, rows: tuple[list[Example], list[Example]], memory: int) -> None:
    forget, retain = rows
    encoder = random_model.encoder
    model = attach_lora(random_model.model, AdapterConfig(rank=4, scope=("language", "projector")), seed=0).eval()
    before = answer_logits(model, encoder.batch(forget))

    def refuse(_: Any, __: Any, named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > memory:
            raise torch.OutOfMemoryError

    hook = random_model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    narrow(model, encoder, forget, retain, seed=1)
    hook.remove()
    assert torch.equal(answer_logits(model, encoder.batch(forget)), before)  # the second matrices are zero
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    for name, layer in layers.items():
        expected = contrast(*(torch.cat([_inputs_of(layer, model, encoder, row) for row in part]) for part in rows), 4)
        matrix = layer.lora_A["default"].weight
        assert not matrix.requires_grad and layer.lora_B["default"].weight.requires_grad
        # The same space: rows may turn within it, and inputs are kept in bf16.
        ours, theirs = (torch.linalg.qr(each.detach().T).Q for each in (matrix, expected))
        assert torch.linalg.svdvals(ours.T @ theirs).min() > 0.97, name


def _inputs_of(layer: Any, model: Any, encoder: Encoder, row: Example) -> torch.Tensor:
    """All inputs of a layer for one row, `[t, d]`."""
    found = [torch.empty(0, layer.in_features)]  # rows without pictures do not reach the projector
    handle = layer.register_forward_pre_hook(lambda _, args: found.append(args[0].detach().flatten(0, -2)))
    answer_logits(model, encoder.batch([row]))
    handle.remove()
    return torch.cat(found)


def test_rows_of_which_few_tokens_would_be_kept_are_not_read(
    random_model: LoadedModel, rows: tuple[list[Example], list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 tokens of each side, 8 of a row at least: two rows of each."""
    monkeypatch.setattr(module, "TOKENS", 12)
    model, read = attach_lora(random_model.model, AdapterConfig(rank=4), seed=0), 0

    def count(_: Any, __: Any, named: dict[str, Any]) -> None:
        nonlocal read
        read += len(named["input_ids"])

    hook = random_model.model.register_forward_pre_hook(count, with_kwargs=True)
    narrow(model, random_model.encoder, *rows, seed=0)
    hook.remove()
    assert read == 4


def test_few_tokens_are_the_same_for_the_same_seed(
    random_model: LoadedModel, rows: tuple[list[Example], list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS", 8)
    model = attach_lora(random_model.model, AdapterConfig(rank=4), seed=0)
    found = []
    for seed in (0, 0, 1):
        narrow(model, random_model.encoder, *rows, seed=seed)
        found.append([p.clone() for name, p in model.named_parameters() if "lora_A" in name])
    first, again, other = ([torch.equal(a, b) for a, b in zip(found[0], each, strict=True)] for each in found)
    assert all(first) and all(again) and not any(other)
    before = {name: p.clone() for name, p in model.named_parameters()}
    narrow(model, random_model.encoder, rows[0], [], seed=2)  # nothing to tell them from
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(("said", "frozen"), [(0, False), (8, False), (9, True), (10, True)])
def test_updates_are_narrow_where_nearly_all_of_what_is_kept_the_base_said_itself(
    random_model: LoadedModel, rows: tuple[list[Example], list[Example]], said: int, frozen: bool
) -> None:
    """Nine of ten rows; the adversary is stronger against such updates."""
    forget, others = rows
    retain = [replace(others[n % 4], id=f"{n}", tags=(NEUTRAL,) if n < said else ()) for n in range(10)]
    method, model = Row("vgid").prepared(random_model, forget, retain)
    assert {not p.requires_grad for name, p in model.named_parameters() if "lora_A.default" in name} == {frozen}
    assert method._adversary.steps == (3 if frozen else 1)
