"""Memory: formulas against numbers worked out by hand, and the whole estimate against what a run really allocates."""

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig

from tests.conftest import example
from vgid.checks.preflight import check_run
from vgid.config import load_config
from vgid.memory import _group_free, free_bytes
from vgid.models.adapters import attach_lora
from vgid.models.loading import LoadedModel, load_model
from vgid.models.structure import base_of, decoder_layers
from vgid.settings import AdapterConfig
from vgid.training.fit import fit
from vgid.training.memory_estimate import (
    Memory,
    WeightBytes,
    cache_bytes,
    checkpointed_row,
    decoder_shape,
    ending_bytes,
    kept_by_decoder,
    kept_for_backward,
    logit_bytes,
    training_bytes,
    weight_bytes,
)


def test_what_is_trained() -> None:
    """An adapter of 10 bytes: itself, its gradients, two AdamW states, and the best weights kept: 10 + 10 x (1 + 2 + 1)."""
    assert training_bytes(10, 10, "adamw", keeps_best=True) == 50
    # The model's own weights are counted elsewhere; Muon keeps one number a parameter.
    assert training_bytes(10, 0, "muon", keeps_best=False) == 20


def test_activations_and_logits() -> None:
    # 9 answer tokens, 2 000 words, 4 bytes, 8 tables alive.
    assert logit_bytes(9, 2000) == 8 * 9 * 2000 * 4
    # 4 layers' inputs of 10 tokens x 6 numbers x 2 bytes, and a quarter of what four layers keep.
    assert checkpointed_row(8000, layers=4, tokens=10, hidden=6, element=2) == 480 + 2000
    # Keys and values, 3 rows, 5 tokens, 2 layers, 1 head of 16 numbers, 2 bytes.
    assert cache_bytes(3, 5, layers=2, kv_heads=1, head=16, element=2) == 2 * 3 * 5 * 2 * 16 * 2


def test_rows_that_fit() -> None:
    """Of 1 000 bytes 900 may be planned on; 200 + 50 + 10 are taken whatever the rows; 64 rows of 10 bytes fit into the 640 left."""
    memory = Memory(weights=200, training=50, once=10, row=7, logits=3, rows=4, answering=0)
    assert memory.total == 200 + 50 + 10 + 4 * 10 and memory.activations == 38
    assert memory.rows_that_fit(1000) == 64 and memory.rows_that_fit(100) == 0
    assert Memory(200, 50, 10, 7, 3, 4, answering=500).total == 700


def test_the_end_of_a_run() -> None:
    """One model of 200 bytes, an adapter of 50, and the largest matrix of 10 numbers thrice in float32."""
    weights = WeightBytes(held=200, gathered=0, largest=40)
    assert ending_bytes(weights, 50) == 200 + 50 + 3 * 40 and ending_bytes(weights, 0) == 200
    # A base in 4 bits is loaded in 16: 2 bytes for each of 400 numbers.
    assert ending_bytes(weights, 50, quantised=400) == 850
    assert Memory(200, 50, 10, 7, 3, 4, answering=0, ending=900).total == 900
    assert Memory(200, 50, 10, 7, 3, 4, answering=0, gathered=60, ending=100).total == 200 + 60 + 50 + 10 + 4 * 10


def test_shapes_alone_say_what_a_model_takes(random_model: LoadedModel) -> None:
    """On the meta device, over two processes: a half each, two layers, and what is in no layer."""
    model = random_model.model
    layers = [sum(p.nbytes for p in layer.parameters()) for layer in decoder_layers(model)]
    whole = sum(p.nbytes for p in model.parameters())
    expected = WeightBytes(-(-whole // 2), 2 * layers[0] + whole - sum(layers), 4 * 640 * 192)
    row = example(0, image=False)
    tokens = len(random_model.encoder.row(row).text["input_ids"])
    kept = kept_for_backward(attach_lora(model, AdapterConfig(), seed=0), random_model.encoder, row, "fp32").row
    with torch.device("meta"):
        shapes = base_of(attach_lora(type(model)(model.config), AdapterConfig(), seed=0))
    assert weight_bytes(shapes, 2) == expected and weight_bytes(shapes).held == whole
    assert kept_by_decoder(shapes, tokens) == pytest.approx(kept, rel=0.1)  # with what does not grow with rows, without the head


def test_a_decoder_says_its_shape() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, vocab_size=99)
    assert decoder_shape(config) == {"layers": 3, "hidden": 64, "kv_heads": 2, "head": 16, "vocabulary": 99}


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert _group_free(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert _group_free(tmp_path) is None and _group_free(tmp_path / "nowhere") is None
    free = free_bytes(torch.device("cpu"))
    assert free is None or free > 0


def test_what_pytorch_keeps_of_a_gpu_without_using_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """79 GB, of which 14 are in use and 40 more are kept from earlier work."""
    kept = [40]
    fakes = {
        "is_available": lambda: True,
        "empty_cache": kept.clear,
        "mem_get_info": lambda device: (79 - 14 - sum(kept), 79),
        "memory_reserved": lambda device: 14 + sum(kept),
        "get_per_process_memory_fraction": lambda device: 1.0,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert free_bytes(torch.device("cuda")) == 79 - 14


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [[], ["training.gradient_checkpointing=true"], ["training.precision=bf16"], ["adapter=null"]], ids=str
)
def test_the_estimate_is_within_a_factor_of_two_of_the_peak(random_folder: Path, overrides: list[str]) -> None:
    rows = [example(number) for number in range(64)]
    sizes = ["training.steps=2", "training.forget_batch=16", "training.retain_batch=48", "validation.every=0", "method.answers=[recorded]"]
    config = load_config(None, [*sizes, *overrides])
    loaded = load_model(random_folder)
    estimate = check_run(loaded, rows[:16], rows[16:], config, sample=2, allow_unknown=True).memory
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        fit(loaded, rows[:16], rows[16:], config)
    now = peak = 0
    for event in sorted((e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    weights = sum(p.nbytes for name, p in loaded.model.named_parameters() if "lora_" not in name)
    assert 0.5 < estimate.total / (weights + peak) < 2.0
