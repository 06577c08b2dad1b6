"""From a model, a forget set and a retain set to a model that forgot: the Python side of `vgid unlearn`."""

from __future__ import annotations

import copy
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgid import processes
from vgid.config import RunConfig
from vgid.data.augmentation import moved_rows
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples, own_answers, telling_words, tells
from vgid.data.self_distilled import anchor_rows
from vgid.data.sources import check_disjoint
from vgid.errors import ConfigError, DataError, OutputError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.methods.base import Context, Method
from vgid.models.adapters import attach_lora
from vgid.models.export import merge_adapter, save_adapter, save_checkpoint, verify_export
from vgid.models.loading import LoadedModel, load_model
from vgid.models.memory_saving import checkpointing, compiled
from vgid.models.packing_check import find_style
from vgid.models.quantisation import is_quantised
from vgid.models.structure import unfreeze
from vgid.seeds import derive_seed
from vgid.training.checkpointing import Checkpoints
from vgid.training.fingerprint import fingerprint
from vgid.training.state import put_weights, weights_of
from vgid.training.trainer import Curves, Progress, train
from vgid.training.validation import EarlyStop, put_aside

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class Fitted:
    """What training leaves behind: the model (with its adapter, if it has one), loss curves and the time it took."""

    loaded: LoadedModel
    curves: Curves
    seconds: float
    stopped: str
    """Why training ended, in words."""


def fit(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    config: RunConfig,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Fitted:
    """Run the configured method. The model passed in is changed in place: it gets the adapter, or new weights.

    Args:
        loaded: the model. Where its parameters are spread over processes, the result is put together from `loaded.path`.
        forget: what to forget.
        retain: what must stay.
        config: settings.
        progress: told (steps done, steps in all).
        checkpoint: folder for checkpoints; None keeps none, and leaves signals alone.
        resume: go on from the checkpoint in it, if there is one.

    Raises:
        ConfigError: when the method cannot train what it is told to, or the model is held in 4 bits and the configuration says
            otherwise, or the other way round.
        DataError: when the processor refuses rows of a kind, or the method lacks retain data.
        ModelError: when the LoRA scope matches nothing.
        RunError: when the loss stops being finite, memory does not suffice, nothing in the model is found worth an edit, or the
            checkpoint is of another run.
        OutputError: when a checkpoint cannot be written.
        StoppedError: when a signal asked the run to stop.
    """
    started = time.monotonic()
    processes.start()
    encoder = loaded.encoder
    encoder.check([*forget, *retain])
    method = config.build_method()
    if not method.trains:
        return _edit(loaded, forget, retain, method, config.seed)
    full = config.adapter is None
    _check_compiled(method, config)
    _check_quantised(loaded.model, config)
    kept = _checkpoints(checkpoint, resume, config, forget, retain, loaded.model)
    retain = [*retain, *_beside(method, forget, retain, config.seed, loaded)]
    copied = copy.deepcopy(loaded.model).eval().requires_grad_(False) if full and method.needs_reference else None
    model = _trainable(loaded, config)
    forget, forget_aside = put_aside(forget, config.validation, derive_seed(config.seed, "forget aside"))
    retain, retain_aside = put_aside(retain, config.validation, derive_seed(config.seed, "retain aside"))
    device = next(model.parameters()).device
    packing = find_style(model, encoder, [*forget, *retain], config.training.pack) if method.packs else None
    stop = EarlyStop(model, encoder, forget_aside, retain_aside, config.validation)
    method.prepare(model, Context(encoder, forget, retain, config.seed, device, copied, packing))
    sharded = processes.count() > 1 and (config.training.shard or processes.asked_to_shard())
    for each in (model, copied) if sharded else ():
        if each is not None:
            processes.shard(each)
    settings = config.training
    with checkpointing(model, settings.gradient_checkpointing), compiled(model, settings.torch_compile):
        curves = train(model, method, forget, retain, settings, seed=config.seed, progress=progress, looks=stop, checkpoints=kept)
    stop.restore()
    if sharded:
        model = _put_together(model, loaded, config)
    model = method.finalize(model).eval()
    return Fitted(LoadedModel(model, loaded.processor, loaded.path), curves | stop.curves, time.monotonic() - started, stop.reason)


def _beside(method: Method[Any], forget: Sequence[Example], retain: Sequence[Example], seed: int, loaded: LoadedModel) -> list[Example]:
    """What a method adds to the retain set."""
    moved = moved_rows(forget, retain, method.moved, seed) if method.moved else []
    anchors = anchor_rows(forget, retain, method.anchors, seed, partial(generate, loaded)) if method.anchors else []
    return [*processes.from_first(anchors), *moved]


def _checkpoints(
    folder: Path | None, resume: bool, config: RunConfig, forget: Sequence[Example], retain: Sequence[Example], model: Any
) -> Checkpoints | None:
    if folder is not None and processes.by_deepspeed():
        if resume:
            raise ConfigError("runs under DeepSpeed cannot be resumed", fix="use the ddp or fsdp2 launch configuration")
        log.warning("under DeepSpeed no checkpoints are kept")
        return None
    return Checkpoints(folder, fingerprint(config, forget, retain, model), resume=resume) if folder is not None else None


def _check_compiled(method: Method[Any], config: RunConfig) -> None:
    if config.training.torch_compile and not method.compiles:
        raise ConfigError(
            "this method, with its settings, reaches into layers, which compiled ones may pass over",
            where="training.torch_compile",
            expected="training.torch_compile=false, or for vgid method.sparring=0 and method.states=0",
            got="training.torch_compile=true",
            fix="leave layers uncompiled; what is forgotten then stays forgotten more surely",
        )


def _check_quantised(model: Any, config: RunConfig) -> None:
    if is_quantised(model) != bool(config.adapter and config.adapter.quantise):
        raise ConfigError(
            "the model is not held as the configuration says",
            where="adapter.quantise",
            expected="the same for the model and its adapter",
            got=f"a model {'in 4 bits' if is_quantised(model) else 'in full'}",
            fix="give load_model the same `quantise` as the configuration",
        )


def _trainable(loaded: LoadedModel, config: RunConfig) -> Any:
    if config.adapter is None:
        return unfreeze(loaded.model, config.training.parts)
    return attach_lora(loaded.model, config.adapter, seed=derive_seed(config.seed, "adapter"))


def _put_together(model: Any, loaded: LoadedModel, config: RunConfig) -> Any:
    """A whole model, in every process, of one whose parameters are spread over all."""
    trained = weights_of(model)
    parameter = next(model.parameters())
    fresh = _trainable(load_model(loaded.path, device=parameter.device, dtype=parameter.dtype), config)
    put_weights(fresh, trained)
    return fresh


CHECKPOINT, EXPORTS = "checkpoint", ("adapter", "merged")


def _edit(loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], method: Method[Any], seed: int) -> Fitted:
    """Run a method that has no loss; nothing is put aside, since there is nothing to stop early."""
    started = time.monotonic()
    device = next(loaded.model.parameters()).device
    method.prepare(loaded.model.eval(), Context(loaded.encoder, forget, retain, seed, device))
    model = method.finalize(loaded.model).eval()
    edited = LoadedModel(model, loaded.processor, loaded.path, method.asks(loaded.processor))
    return Fitted(edited, {}, time.monotonic() - started, "nothing to train")


def unlearn(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example] = (),
    config: RunConfig | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    keep_checkpoint: bool = False,
) -> Fitted:
    """Make a model forget. With `out`, `out/adapter` and `out/merged` are written, reloaded with stock libraries and compared.

    With `out`, the run also keeps its state in `out/checkpoint` until it is done, so that one that was stopped or killed can go on.
    Where a launcher started several processes, all call this, and the first one writes.

    Args:
        loaded: the model; it gets an adapter (`config.adapter`), or new weights.
        forget: what to forget.
        retain: what must stay; where it is empty, `config.neutral_retain` neutral rows stand in for it.
        config: settings; None takes our defaults.
        out: where to write; None keeps the result in memory.
        progress: told (steps done, steps in all).
        resume: go on from the checkpoint in `out`; without one there, begin anew.
        keep_checkpoint: leave the last checkpoint, for a caller that has more to do and then calls `forget_checkpoint`.

    Raises:
        DataError: there is nothing to forget, or an example is in both sets.
        ModelError: the LoRA scope matches nothing.
        OutputError: nothing can be written to `out`, or there is nothing left to resume.
        RunError: the loss stops being finite, memory does not suffice, the checkpoint is of another run, or the written model does not
            answer as the trained one.
        StoppedError: a signal asked the run to stop; it can be resumed.
    """
    if not forget:
        raise DataError("there is nothing to forget", expected="at least one forget row", got="none", fix="check the forget data")
    check_disjoint(forget, retain)
    config = config or RunConfig()
    retain = retain or processes.from_first(neutral_retain(loaded, forget, config))
    checkpoint = Path(out) / CHECKPOINT if out is not None else None
    if resume:
        _check_resumable(checkpoint)
    fitted = fit(loaded, forget, retain, config, progress=progress, checkpoint=checkpoint, resume=resume)
    if out is not None and processes.rank() == 0:
        if resume:
            _clear(Path(out))
        _export(fitted, Path(out), [*forget[:8], *retain[:8]])
        if not keep_checkpoint:
            forget_checkpoint(Path(out))
    return fitted


def forget_checkpoint(out: Path) -> None:
    """Remove the checkpoint of a run that needs it no more."""
    if processes.rank() == 0:
        shutil.rmtree(out / CHECKPOINT, ignore_errors=True)


def _check_resumable(checkpoint: Path | None) -> None:
    if checkpoint is None:
        raise OutputError("there is nothing to resume from", expected="the folder of the run as `out`", got="none", fix="give `out`")
    if not checkpoint.is_dir() and any((checkpoint.parent / name).is_dir() for name in EXPORTS):
        raise OutputError("the run is complete, there is nothing to resume", where=str(checkpoint.parent), fix="use what it left there")


def _clear(out: Path) -> None:
    """Remove what a run that was killed while it wrote its models has left, whole or in part."""
    for name in EXPORTS:
        for left in (out / name, *out.glob(f".{name}.*")):
            shutil.rmtree(left, ignore_errors=True)


def neutral_retain(loaded: LoadedModel, forget: Sequence[Example], config: RunConfig) -> list[Example]:
    """`config.neutral_retain` neutral rows with the model's own answers; with pictures only, for a model that takes no others.

    A model that has learned little else may name a person it must forget even here; such rows are left out, and counted, as are those
    with a part of a fact.
    """
    rows = neutral_examples(config.neutral_retain, config.seed)
    try:
        loaded.encoder.check(rows)
    except DataError:
        rows = neutral_examples(config.neutral_retain, config.seed, pictures=1.0)
    answered = own_answers(rows, partial(generate, loaded)) if rows else []
    facts: set[tuple[tuple[str, ...], str]] = {((word,), "") for example in forget for word in example.keywords}
    facts |= {((), example.answer) for example in forget if not example.keywords}
    words = telling_words(forget)
    kept = [row for row in answered if not tells(row.answer, words) and not any(key_fact(row.answer, *fact) for fact in facts)]
    if len(kept) < len(rows):
        log.info("%d of %d neutral rows left out: no answer, or one with a fact to forget", len(rows) - len(kept), len(rows))
    return kept


def _export(fitted: Fitted, out: Path, probes: Sequence[Example]) -> None:
    model, processor = fitted.loaded.model, fitted.loaded.processor
    save_adapter(model, out / "adapter")
    if is_quantised(model):
        merge_adapter(fitted.loaded.path, out / "adapter", out / "merged")
    else:
        save_checkpoint(model, processor, out / "merged")
    verify_export(fitted.loaded, out, probes)
