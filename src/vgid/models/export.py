"""Export to plain checkpoints: adapter and merged weights, with a proof that they answer as the trained model does."""

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
"""Largest absolute difference of two logits that rounding explains, by precision; chosen by hand on the embedded model."""


def save_adapter(model: Any, out: Path) -> None:
    """Write the LoRA adapter in PEFT's format; for a model without an adapter nothing is written.

    The folder appears only when all is written.

    Raises:
        OutputError: the folder is not empty, or cannot be made.
    """
    if isinstance(model, PeftModel):
        with whole_folder(out) as folder:
            model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def save_checkpoint(model: Any, processor: Any, out: Path) -> None:
    """Write model and processor as stock transformers reads them, with the adapter merged in; the model itself is not changed.

    The folder appears only when all is written. Of the weights, only the adapted matrices are in memory twice.

    Args:
        model: the model, with or without an adapter.
        processor: the model's processor.
        out: the folder to make.

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
            # Summed in float32, so that the result is rounded once.
            delta = sum(layer.get_delta_weight(each).float() for each in layer.active_adapters)
            yield f"{owner}.weight", (value.float() + delta).to(value.dtype)
        else:
            yield f"{owner}.{kind}" if adapted else name, value


def merge_adapter(base: str, adapter: Path, out: Path) -> None:
    """Merge an adapter into its base, in the precision of the base's checkpoint.

    The base is loaded for this, even where it is in memory in 4 bits: the rounding to 4 bits would stay in the result.

    Args:
        base: folder or hub id of the base.
        adapter: folder of the adapter.
        out: the folder to make.

    Raises:
        ModelError: the base cannot be loaded, or the adapter does not fit it.
        OutputError: the folder is not empty, or cannot be made.
    """
    whole = load_model(base, device="cpu", dtype="auto", adapter=adapter)
    save_checkpoint(whole.model, whole.processor, out)


def verify_export(loaded: LoadedModel, out: Path, probes: Sequence[Example]) -> None:
    """Load the written files with stock libraries, and compare their logits at every answer token with those of the trained model.

    A model trained on a base in 4 bits is compared in full precision, as it was written: merged weights with base and adapter.

    Args:
        loaded: the trained model.
        out: folder with `merged`, and with `adapter` where there is one.
        probes: examples to compare on.

    Raises:
        RunError: they differ by more than `TOLERANCE`.
    """
    if is_quantised(loaded.model):
        loaded = load_model(loaded.path, device=loaded.model.device, adapter=out / "adapter")
    device, dtype = loaded.model.device, loaded.model.dtype
    batch = Encoder(loaded.processor).batch(probes).to(device)  # plain questions, also for methods that change them at inference
    with torch.no_grad():
        trained = answer_logits(loaded.model.eval(), batch).float()
        exports: dict[str, tuple[Path, Path | None]] = {"merged": (out / "merged", None)}
        if (out / "adapter").is_dir():
            exports["adapter"] = (Path(loaded.path), out / "adapter")
        for name, (path, adapter) in exports.items():
            again = load_model(path, device=device, dtype=dtype, adapter=adapter)
            written = answer_logits(again.model, again.encoder.batch(probes).to(device)).float()
            compare(name, out, trained, written, TOLERANCE.get(dtype, 1e-3))


def compare(name: str, out: Path, trained: Tensor, written: Tensor, tolerance: float) -> float:
    """Compare the logits of two models for the same answers.

    Args:
        name: the export that is compared, for messages: a folder below `out`.
        out: folder of the export, for messages.
        trained: logits of the trained model, `[n, v]`.
        written: logits of the written model, `[n, v]`.
        tolerance: largest absolute difference that is accepted.

    Returns:
        The largest absolute difference of two logits.

    Raises:
        RunError: the difference is larger than the tolerance, or the most likely token has changed where it led by more than twice the
            tolerance.
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
