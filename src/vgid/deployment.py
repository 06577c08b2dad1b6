"""`vgid export` and `vgid verify-export`: plain checkpoints from an adapter, and the proof that they give the same answers."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgid import processes
from vgid.artifacts import whole_folder
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples
from vgid.data.sources import Rows, load_examples, rows_of
from vgid.errors import DataError, ModelError, RunError
from vgid.evaluation.generation import generate
from vgid.formats import check_format, convert_to_gguf, find_converter, write_format
from vgid.model_card import carry_card
from vgid.models.checkpoints import WEIGHTS, check_finite, copy_side_files, differences, folder_of, opened, tensor_headers
from vgid.models.export import FEW, TOLERANCE, compare, finite_logits, merge_adapter, release
from vgid.models.file_checks import ADAPTER_WEIGHTS, base_of_adapter, check_adapter, is_adapter, weight_files
from vgid.models.foreign_adapters import is_plain
from vgid.models.loading import LoadedModel, check_model_path, load_model
from vgid.models.serving import Serving, serving_of

SHOWN = 20
"""Differences between checkpoints that a message lists."""
PROBES = 16
"""Number of questions that exports are compared on; chosen by hand."""
log = logging.getLogger("vgid")
VOCABULARY = re.compile(r"\b(embed_tokens|lm_head)\b")
"""In the names of tensors with a row for each token."""


def export_command(
    model: str,
    adapter: Path | None,
    out: Path,
    *,
    merge: bool,
    to: str | None = None,
    forget: Rows | None = None,
    retain: Rows | None = None,
) -> dict[str, Any]:
    """Write an adapter, merged into its base or unchanged, or copy a model's folder; everything is loaded first, to check it.

    Args:
        model: folder or hub id of the base; without an adapter, the folder to copy.
        adapter: folder of the adapter; None to copy the model.
        out: the folder to make.
        merge: whether to merge the adapter into its base.
        to: number format (`vgid.formats.FORMATS`) to write the model in, with the adapter merged; None for the checkpoint's own.
        forget: rows whose facts must not come back with the format.
        retain: further rows to ask in both formats; without any rows, neutral questions are asked.

    Returns:
        What `write_format` found out; empty without `to`.

    Raises:
        ModelError: the base cannot be loaded, the adapter does not fit it, a weight is not finite, or there is no folder to copy.
        ConfigError: the format cannot be written here.
        RunError: forgotten facts came back with the format, or logits are not finite.
        OutputError: the folder is not empty, or cannot be written.
    """
    if to is not None:
        return _convert(model, adapter, out, to, forget, retain)
    if adapter is None and not is_adapter(model):
        _copy(model, out)
    elif merge or adapter is None:
        _merge(model, adapter, out)
    else:
        loaded = load_model(model, device="cpu", dtype="auto", adapter=adapter)
        check_finite(adapter)
        _check_logits(loaded, adapter)
        with whole_folder(out) as folder:
            shutil.copy(adapter / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
            copy_side_files(adapter, folder)  # its configuration, and a processor with added tokens
            carry_card(adapter, folder)
    return {}


def _merge(model: str, adapter: Path | None, out: Path) -> None:
    """Merge an adapter into its base; one that is given as the model names its base itself."""
    base = model
    if adapter is None:
        adapter, base = Path(model), base_of_adapter(Path(model))
    check_finite(adapter)
    if (folder := folder_of(base)) is not None:
        check_finite(folder)
    with whole_folder(out) as unfinished:
        merge_adapter(base, adapter, unfinished)
        check_finite(unfinished)  # what is not plain LoRA may be too large for the precision
        _check_logits(load_model(unfinished, device="cpu", dtype="auto"), out)
        carry_card(adapter, unfinished)


def _convert(model: str, adapter: Path | None, out: Path, to: str, forget: Rows | None, retain: Rows | None) -> dict[str, Any]:
    """Write a model in another number format; an adapter is merged into a temporary folder first."""
    forget_rows = list(rows_of(forget, name="forget")) if forget is not None else []
    others = list(rows_of(retain, name="retain")) if retain is not None else []
    check_format(to)
    before = base_of_adapter(Path(model)) if adapter is None and is_adapter(model) else model
    if to == "gguf" and (base := folder_of(before)) is not None:
        convert_to_gguf(find_converter(), base, out, dry_run=True)  # before anything is merged or asked
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent if out.parent.is_dir() else None) as unfinished:
        folder = model
        if adapter is not None or is_adapter(model):
            folder = str(Path(unfinished) / "merged")
            _merge(model, adapter, Path(folder))
        source = load_model(folder, dtype="auto")
        if (files := folder_of(folder)) is not None:
            check_finite(files)
            folder = str(files)  # of a model from the hub, too
        _check_logits(source, Path(model))
        return write_format(source, folder, out, to, forget_rows, others or _probes(source, [], 0))


def _copy(model: str, out: Path) -> None:
    """Copy a checkpoint byte for byte, so that the delivered model is the audited one; stock libraries must be able to load it.

    Weights beside the model's, such as those before unlearning or of an optimizer, are left out.
    """
    check_model_path(model)
    if not Path(model).is_dir():
        raise ModelError("a model without an adapter is copied from a folder", where=model, fix="give a folder, or --adapter")
    loaded = load_model(model, device="cpu", dtype="auto")
    check_finite(Path(model))
    _check_logits(loaded, Path(model))
    read = weight_files(Path(model))
    files = sorted(file for file in Path(model).iterdir() if file.is_file())
    other = [file.name for file in files if file.name.endswith(WEIGHTS) and file.name not in read]
    if other:
        log.warning("left out, since the model is not read from them: %s", ", ".join(other))
    with whole_folder(out) as folder:
        for file in files:
            if file.name not in other:
                shutil.copy(file, folder / file.name)


def _check_logits(loaded: LoadedModel, where: Path) -> None:
    """Make sure that what a model says is a number, on a few neutral questions.

    Raises:
        RunError: a logit is not finite.
    """
    finite_logits(loaded, _probes(loaded, [], 0)[:FEW], where)


def verify_command(
    folder: Path, base: str | None, data: Sequence[Path], seed: int = 0, adapter: Path | None = None, *, shard: bool = False
) -> dict[str, Any]:
    """Load exports with stock libraries, and compare the merged model with base and adapter.

    Args:
        folder: a run's folder with `merged` and `adapter`, or one of these two.
        base: folder or hub id of the adapter's base; None for the one that the adapter names.
        data: data files with questions to compare on; empty for neutral pictures and questions.
        seed: random seed of the neutral questions.
        adapter: the adapter's folder, where it is not in `folder`.
        shard: where a launcher started several processes, hold each model sharded over them; all call this.

    Returns:
        The report (schema `vgid.verify/1`): exports, number of tensors and of questions, share of equal answers, largest difference of two
        logits, warnings, and options for servers.

    Raises:
        ModelError: there is no export, weights are missing or not finite, or an adapter does not fit the model.
        RunError: merged model and adapter give different answers, or logits are not finite.
    """
    if shard:
        processes.start()
    merged, found = _exports(folder)
    adapter = adapter or found
    config: dict[str, Any] = {}
    if adapter is not None:
        config = check_adapter(adapter)
        check_finite(adapter, ADAPTER_WEIGHTS)
        base = base or config.get("base_model_name_or_path")
        if not base:
            raise ModelError("the adapter does not name its base", where=adapter, fix="give the base with --base")
    rows: list[Example] = []
    said: dict[str, Said] = {}
    serving: Serving | None = None
    if merged is not None:
        loaded = load_model(merged, shard=shard)
        check_finite(merged)
        _check_whole(merged, base, adapter)
        rows = _probes(loaded, data, seed)
        said["merged"] = _said("merged", loaded, rows, folder)
        release(loaded.model)  # before the other one is loaded
    if adapter is not None:
        loaded = load_model(str(base), adapter=adapter, dtype=said["merged"].dtype if said else None, shard=shard)
        serving = serving_of(loaded.model, int(config.get("r", 16)), str(adapter))
        rows = rows or _probes(loaded, data, seed)
        said["adapter"] = _said("adapter", loaded, rows, folder)
    report: dict[str, Any] = {
        "schema": "vgid.verify/1",
        "exports": {name: str(path) for name, path in (("merged", merged), ("adapter", adapter)) if path is not None},
        "base": base,
        "tensors": len(tensor_headers(adapter, ADAPTER_WEIGHTS)) if adapter is not None else None,
        "compared_on": len(rows),
        "warnings": list(serving.warnings) if serving else [],
        "vllm": list(serving.vllm) if serving else [],
        "sglang": list(serving.sglang) if serving else [],
    }
    if adapter is not None and _is_zero(adapter):
        report["warnings"].append("the adapter changes nothing: all its B matrices are zero")
    return report | _compared(said, folder)


def _check_whole(merged: Path, base: str | None, adapter: Path | None) -> None:
    """Compare the tensors of base and merged model by name, shape and type.

    Raises:
        RunError: they differ in names or shapes; another precision is a choice.
    """
    folder = folder_of(base) if base else None
    if folder is None:
        return
    before, after = tensor_headers(folder), tensor_headers(merged)
    if adapter is not None and any(VOCABULARY.search(name) for name in tensor_headers(adapter, ADAPTER_WEIGHTS)):
        # Such an adapter may have added tokens, or untied embeddings and head.
        before, after = ({name: each for name, each in side.items() if not VOCABULARY.search(name)} for side in (before, after))
    shapes = [{name: each.shape for name, each in side.items()} for side in (before, after)]
    if shapes[0] != shapes[1] and (found := differences(before, after)):
        shown = "\n  ".join(["", *found[:SHOWN], *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])])
        raise RunError(
            "the merged checkpoint is not whole",
            where=merged,
            expected="the tensors of the base, by name and shape",
            got=shown,
            fix="merge it again with this release: vgid export --merge",
        )


def _exports(folder: Path) -> tuple[Path | None, Path | None]:
    merged = next((path for path in (folder / "merged", folder) if (path / "config.json").is_file()), None)
    adapter = next((path for path in (folder / "adapter", folder) if (path / "adapter_config.json").is_file()), None)
    if merged is None and adapter is None:
        raise ModelError("the folder holds no export", where=folder, expected="merged/, adapter/, or one of them itself", got="neither")
    return merged, adapter


def _probes(loaded: LoadedModel, data: Sequence[Path], seed: int) -> list[Example]:
    """Questions with answers; neutral ones get a fixed answer, whose logits are compared whatever the models would say."""
    if data:
        return [row for path in data for row in load_examples(path)[:PROBES]]
    rows = [replace(row, answer="This is a picture.") for row in neutral_examples(PROBES, seed)]
    try:
        loaded.encoder.check(rows)
    except DataError:
        rows = [row for row in rows if row.images]
    return rows


class Said(NamedTuple):
    """What one export says to the probes, on the host: float32 logits `[n, v]` at their answers, greedy answers, and its precision."""

    logits: Tensor
    answers: list[str]
    dtype: torch.dtype


def _said(name: str, loaded: LoadedModel, rows: Sequence[Example], folder: Path) -> Said:
    return Said(finite_logits(loaded, rows, folder, name), generate(loaded, rows), loaded.model.dtype)


def _compared(said: dict[str, Said], folder: Path) -> dict[str, Any]:
    """Compare greedy answers and logits of the two exports; with a single export there is nothing to compare."""
    if len(said) < 2:
        return {"same_answers": None, "largest_difference": None}
    merged, adapter = said["merged"], said["adapter"]
    worst = compare("merged", folder, adapter.logits, merged.logits, TOLERANCE.get(merged.dtype, 1e-3))
    count, same = len(merged.answers), sum(a == b for a, b in zip(merged.answers, adapter.answers, strict=True))
    if same < count and worst < 1e-3:
        raise RunError("merged model and adapter do not give the same answers", where=folder, expected=f"{count} of {count}", got=str(same))
    return {"same_answers": same / count, "largest_difference": worst}


def _is_zero(adapter: Path) -> bool:
    if not is_plain(adapter):  # modules trained whole, for example, change the model without any B matrix
        return False
    with opened(adapter / ADAPTER_WEIGHTS) as file:
        return all(not file.get_tensor(name).any() for name in file.keys() if "lora_B" in name)  # noqa: SIM118
