"""Plain checkpoints out: adapter and merged weights, proved to be what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from vgid.artifacts import whole_folder
from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.errors import RunError
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.quantisation import is_quantised
from vgid.models.structure import base_of

TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2.5e-1}
"""Largest difference of two logits that rounding explains."""


def save_adapter(model: Any, out: Path) -> None:
    """Write the LoRA adapter as PEFT reads it, whole or not at all; a model without adapter leaves nothing.

    Raises:
        OutputError: the folder is not empty, or cannot be made.
    """
    if isinstance(model, PeftModel):
        with whole_folder(out) as folder:
            model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def save_checkpoint(model: Any, processor: Any, out: Path) -> None:
    """Write the model, its adapter merged in, and the processor, as stock transformers reads them; the model is left as it was.

    It appears whole or not at all. Only the adapted matrices are held twice.

    Raises:
        OutputError: the folder is not empty, or cannot be made.
    """
    base = base_of(model)
    with whole_folder(out) as folder:
        base.save_pretrained(folder, state_dict=dict(_merged(base)))
        processor.save_pretrained(folder)


@torch.no_grad()
def _merged(base: Any) -> Iterator[tuple[str, Tensor]]:
    for name, value in base.state_dict().items():
        owner, adapted, kind = name.rpartition(".base_layer.")
        if ".lora_" in name:
            continue
        if adapted and kind == "weight":
            layer = base.get_submodule(owner)
            # Summed in float32 and rounded once.
            delta = sum(layer.get_delta_weight(each).float() for each in layer.active_adapters)
            yield f"{owner}.weight", (value.float() + delta).to(value.dtype)
        else:
            yield f"{owner}.{kind}" if adapted else name, value


def merge_adapter(base: str, adapter: Path, out: Path) -> None:
    """Merge an adapter into its base in the base's own precision: a base held in 4 bits would leave its rounding in the result.

    Raises:
        ModelError: the base cannot be loaded, or the adapter does not fit it.
        OutputError: the folder is not empty, or cannot be made.
    """
    whole = load_model(base, device="cpu", dtype="auto", adapter=adapter)
    save_checkpoint(whole.model, whole.processor, out)


def verify_export(loaded: LoadedModel, out: Path, probes: Sequence[Example]) -> None:
    """Reload what was written with stock libraries and compare its answers with the trained model's, token by token.

    A model trained on a base in 4 bits is compared in full precision, as it was written: merged weights against base and adapter.

    Raises:
        RunError: they differ by more than rounding.
    """
    if is_quantised(loaded.model):
        loaded = load_model(loaded.path, device=loaded.model.device, adapter=out / "adapter")
    device, dtype = loaded.model.device, loaded.model.dtype
    batch = Encoder(loaded.processor).batch(probes).to(device)  # asked plainly, whatever is put before questions at inference
    with torch.no_grad():
        trained = answer_logits(loaded.model.eval(), batch).float()
        ways = {"merged": (out / "merged", None)}
        if (out / "adapter").is_dir():
            ways["adapter"] = (Path(loaded.path), out / "adapter")  # type: ignore[assignment]
        for name, (path, adapter) in ways.items():
            again = load_model(path, device=device, dtype=dtype, adapter=adapter)
            written = answer_logits(again.model, again.encoder.batch(probes).to(device)).float()
            compare(name, out, trained, written, TOLERANCE.get(dtype, 1e-3))


def compare(name: str, out: Path, trained: Tensor, written: Tensor, tolerance: float) -> float:
    """The largest difference of two logits.

    Raises:
        RunError: it is more than the tolerance, or a token the model was sure of has changed.
    """
    worst = (trained - written).abs().max().item()
    sure = trained.topk(2, dim=-1).values.diff(dim=-1).abs().squeeze(-1) > 2 * tolerance
    differ = int(((trained.argmax(dim=-1) != written.argmax(dim=-1)) & sure).sum())
    if not worst <= tolerance or differ:
        raise RunError(
            f"the {name} model does not answer as the trained one",
            where=out / name,
            expected=f"the same logits up to {tolerance}",
            got=f"a difference of {worst:.3g}, {differ} answer tokens of {len(trained)} changed",
            fix="do not use these files; report this with the model's name",
        )
    return float(worst)
