"""Export to plain checkpoints: adapter and merged weights, with a proof that they answer as the trained model does."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from vgid import processes
from vgid.artifacts import whole_folder, write_json_atomic
from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.errors import RunError
from vgid.memory import free_memory
from vgid.models.adapters import summarise_names
from vgid.models.checkpoints import copy_side_files, folder_of, read_tensors
from vgid.models.foreign_adapters import fold_adapter, is_plain
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel, load_model
from vgid.models.merging import Merging, Rounding, WeightFiles, set_precision
from vgid.models.structure import base_of, inspect_model

KL_FACTOR = 8.0
"""A merged model may differ from the trained one by this multiple of the floor, in mean KL divergence of answer tokens. The floor is what
the same weights differ by in another batch shape. Chosen by hand; no model has been unlearned at 7B yet to calibrate it."""
KL_LEAST = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
"""Nats a token that are always allowed, by precision, since the floor may be zero. At the shape of LLaVA-1.5-7B in bf16, merging 4 steps at
1e-4 cost 7e-4 (one H100, random weights)."""
SWALLOWED = 0.5
"""Above this share of the update lost to rounding, the merged model is written in float32: half of the unlearning would not be in it."""
WORTH_SAYING = 0.01
"""Share of the update lost to rounding from which it is logged; chosen by hand."""
FAILED = "VERIFICATION-FAILED.json"
"""Name of the file that marks an export that does not answer as the trained model."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2.5e-1}
"""Largest absolute difference of two logits of an adapter on its base and the merged model, by precision; chosen by hand."""
FEW = 2
"""Number of questions that a model is asked only to see that its logits are numbers."""
log = logging.getLogger("vgid")


def save_adapter(model: Any, out: Path) -> None:
    """Write the LoRA adapter in PEFT's format; for a model without an adapter nothing is written.

    The folder appears only when all is written.

    Raises:
        OutputError: the folder is not empty, or cannot be made.
    """
    if isinstance(model, PeftModel):
        with whole_folder(out) as folder:
            model.save_pretrained(folder, state_dict=_adapter_state(model))
            if whole := _whole_state(model):
                _add_whole(folder, model, whole)
            (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def _adapter_state(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's part of the state: the whole would be gathered, where the base is sharded over processes."""
    return {name: value.detach() for name, value in model.named_parameters() if ".lora_" in name}


def _whole_state(model: PeftModel) -> dict[str, Tensor]:
    """Weights that are trained beside the adapter, by the names that PEFT's file gives to modules saved whole; buffers do not count."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad and ".lora_" not in name}


def _add_whole(folder: Path, model: PeftModel, whole: Mapping[str, Tensor]) -> None:
    """Add them to a written adapter as PEFT's `modules_to_save`, so that it stands for the whole training."""
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    save_file({**load_file(file), **{name: value.cpu().contiguous() for name, value in whole.items()}}, file, {"format": "pt"})
    modules = [name for name in inspect_model(base_of(model)).projector if any(f".{name}." in each for each in whole)]
    write_json_atomic(config, {**json.loads(config.read_text("utf-8")), "modules_to_save": modules})


def save_checkpoint(model: Any, processor: Any, out: Path, origin: LoadedModel | None = None) -> Rounding:
    """Write model and processor as stock transformers reads them, with the adapter merged in; the model itself is not changed.

    The folder appears only when all is written. Layers are merged and written one after the other, so that neither device nor host holds
    a second model. All processes of a sharded model must call this; the first one writes.

    Args:
        model: the model, with or without an adapter.
        processor: the model's processor.
        out: the folder to make.
        origin: the base as it was loaded; tensors that its checkpoint holds and no model class builds, and side files of its folder, are
            carried over unchanged.

    Returns:
        Shares of the update that rounding to the checkpoint's precision swallows. Where it would be more than `SWALLOWED`, the checkpoint
        is written in float32, and they are 0.

    Raises:
        OutputError: the folder is not empty, or cannot be made.
    """
    base = base_of(model)
    processes.gather_nothing(base)
    first = processes.rank() == 0 or not processes.is_sharded(base)
    with whole_folder(out) if first else nullcontext() as folder:
        if folder:
            base.save_pretrained(folder, state_dict={})  # all but the weights
            processor.save_pretrained(folder)
        carried = _carried(origin) if folder and origin else {}
        rounding = _write_weights(base, folder, None, carried)
        if rounding.share > SWALLOWED:
            log.warning("%s swallows %.0f %% of the update, so the merged model is written in float32", base.dtype, 100 * rounding.share)
            rounding = _write_weights(base, folder, torch.float32, carried)
            if folder:
                set_precision(folder / "config.json", torch.float32)
        elif rounding.share > WORTH_SAYING:
            layer, most = rounding.worst
            log.info("%s swallows %.0f %% of the update, at most %.0f %% (%s)", base.dtype, 100 * rounding.share, 100 * most, layer)
        if folder and origin and (origins := folder_of(origin.path)):
            copy_side_files(origins, folder)
    return rounding


def _write_weights(base: Any, folder: Path | None, dtype: torch.dtype | None, carried: Mapping[str, Tensor]) -> Rounding:
    """Write merged weights in place of those that are there; without a folder, only take part in gathering them."""
    merging, files = Merging(base, dtype), WeightFiles(folder) if folder else None
    if folder:
        for left in folder.glob("model*.safetensors*"):
            left.unlink()
    for piece in merging.pieces():
        if files:
            files.add(piece)
    if files:
        files.add(carried)
        files.finish()
    return processes.from_first(merging.rounding()) if processes.is_sharded(base) else merging.rounding()


def _carried(origin: LoadedModel) -> dict[str, Tensor]:
    """Tensors of a base's checkpoint that no model class builds."""
    folder = folder_of(origin.path)
    carried = read_tensors(folder, origin.unbuilt) if folder and origin.unbuilt else {}
    if carried:
        log.info("carried over %d tensors that the model class does not build: %s", len(carried), summarise_names(list(carried)))
    return carried


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
    model = whole.model if is_plain(adapter) else fold_adapter(whole.model)
    save_checkpoint(model, whole.processor, out, whole)


@torch.no_grad()
def finite_logits(loaded: LoadedModel, rows: Sequence[Example], where: Path, name: str = "exported") -> Tensor:
    """Return a model's logits at the answers of rows, which finite weights alone do not make finite.

    Args:
        loaded: the model.
        rows: rows with answers.
        where: its place, for the message.
        name: what the message calls the model.

    Returns:
        Logits `[n, v]` in float32, on the host.

    Raises:
        RunError: one is not a finite number.
    """
    logits = answer_logits(loaded.model, loaded.encoder.batch(rows).to(loaded.model.device)).float().cpu()
    if not bool(torch.isfinite(logits).all()):
        raise RunError(
            f"the {name} model's logits are not finite numbers",
            where=where,
            expected="finite logits",
            got="NaN or infinity",
            fix="do not deploy this model",
        )
    return logits


class Outputs(NamedTuple):
    """What a model says about probes, on the host.

    Attributes:
        log_p: float32 `[n, v]`, log-probabilities at answer tokens.
        tensors: the adapter's tensors by their names in PEFT's file; empty without an adapter.
        floor: mean KL divergence, in nats, between all probes in one batch and each by itself: what another batch shape costs.
        dtype: precision of the model.
    """

    log_p: Tensor
    tensors: dict[str, Tensor]
    floor: float
    dtype: torch.dtype


@torch.no_grad()
def outputs_of(model: Any, processor: Any, probes: Sequence[Example]) -> Outputs:
    """Take down what a trained model says about probes, so that it can be released before the written one is loaded.

    Args:
        model: the model; plain questions are asked, also for methods that change them at inference.
        processor: the model's processor.
        probes: examples to compare on.

    Returns:
        Outputs on the host.
    """
    encoder, device = Encoder(processor), model.device
    together = _log_p(model.eval(), encoder.batch(probes).to(device))
    alone = torch.cat([_log_p(model, encoder.batch([probe]).to(device)) for probe in probes])
    tensors = (
        {name: value.cpu() for name, value in {**get_peft_model_state_dict(model, _adapter_state(model)), **_whole_state(model)}.items()}
        if isinstance(model, PeftModel)
        else {}
    )
    return Outputs(together, tensors, _divergence(together, alone), model.dtype)


def _log_p(model: Any, batch: Batch) -> Tensor:
    return answer_logits(model, batch).float().log_softmax(-1).cpu()


def _divergence(one: Tensor, other: Tensor) -> float:
    return float((one.exp() * (one - other)).sum(-1).mean())


def release(model: Any) -> None:
    """Give up the memory of a model's weights, whoever still holds the model; it cannot be used any more."""
    processes.gather_nothing(model)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.grad = None
        if processes.shard_of(tensor) is tensor:
            tensor.data = tensor.data.new_empty(0)
        elif (storage := processes.shard_of(tensor.detach()).untyped_storage()).resizable():  # others lie in files
            storage.resize_(0)
    free_memory()


def verify_export(trained: Outputs, device: torch.device, out: Path, probes: Sequence[Example], *, shard: bool = False) -> LoadedModel:
    """Load the written model with stock libraries, compare it with the trained one, and return it: it is what will be deployed.

    Merging into bf16 changes logits more than computing does, and how much depends on the model; so the bound is a multiple of what the
    same weights differ by in another batch shape. The adapter's file must hold the trained tensors to the bit.

    Args:
        trained: what the trained model said.
        device: device to load to.
        out: folder with `merged`, and with `adapter` where there is one.
        probes: the examples compared on.
        shard: load it sharded over the processes, all of which must call this.

    Returns:
        The merged model.

    Raises:
        RunError: they differ by more than that; the files are kept and marked by `VERIFICATION-FAILED.json`.
    """
    _verify_adapter(trained, out)
    merged = load_model(out / "merged", device=device, dtype=trained.dtype if device.type == "cpu" else None, shard=shard)
    with torch.no_grad():
        written = _log_p(merged.model, merged.encoder.batch(probes).to(device))
    found = _divergence(trained.log_p, written)
    allowed = KL_FACTOR * trained.floor + KL_LEAST.get(trained.dtype, 1e-6)
    changed = int((trained.log_p.argmax(-1) != written.argmax(-1)).sum())
    log.debug("merged model: KL %.2g nats a token, allowed %.2g, floor %.2g", found, allowed, trained.floor)
    if not found <= allowed:
        figures = {"kl": found, "allowed": allowed, "floor": trained.floor, "changed_tokens": changed, "tokens": len(written)}
        if processes.rank() == 0:
            write_json_atomic(out / "merged" / FAILED, {"schema": "vgid.verification/1", **figures})
        again = f"; the adapter is whole, merge it again: vgid export --merge --adapter {out / 'adapter'}" if trained.tensors else ""
        raise RunError(
            "the merged model does not answer as the trained one",
            where=out / "merged",
            expected=f"a KL divergence of at most {allowed:.2g} nats a token",
            got=f"{found:.2g}, and {changed} of {len(written)} answer tokens changed",
            fix=f"do not deploy this model, which is marked by {FAILED}{again}",
        )
    return merged


def _verify_adapter(trained: Outputs, out: Path) -> None:
    file = out / "adapter" / "adapter_model.safetensors"
    if not file.is_file():
        return
    written = load_file(file)
    wrong = [name for name, value in trained.tensors.items() if name not in written or not torch.equal(written[name], value)]
    if wrong or len(written) != len(trained.tensors):
        raise RunError(
            "the adapter's file does not hold the trained weights",
            where=file,
            expected=f"{len(trained.tensors)} tensors as trained",
            got=f"{len(written)} tensors, {len(wrong)} that are missing or differ",
            fix="check the disk, and run the same command again with --resume",
        )


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
