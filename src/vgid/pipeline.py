"""From a model, a forget set and a retain set to a model that forgot: the Python side of `vgid unlearn`."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgid.config import RunConfig
from vgid.data.anchors import anchor_rows
from vgid.data.example import Example
from vgid.data.sources import check_disjoint
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.methods.base import Context, Method
from vgid.models.adapters import attach_lora
from vgid.models.export import save_adapter, save_checkpoint, verify_export
from vgid.models.loading import LoadedModel
from vgid.models.packing import find_style
from vgid.models.structure import unfreeze
from vgid.training.seeds import derive_seed
from vgid.training.trainer import Curves, Progress, train
from vgid.training.validation import EarlyStop, put_aside


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
) -> Fitted:
    """Run the configured method. The model passed in is changed in place: it gets the adapter, or new weights.

    Raises:
        ConfigError: when the method cannot train what it is told to.
        DataError: when the processor refuses rows of a kind, or the method lacks retain data.
        ModelError: when the LoRA scope matches nothing.
        RunError: when the loss stops being finite, or nothing in the model is found worth an edit.
    """
    started = time.monotonic()
    encoder = loaded.encoder
    encoder.check([*forget, *retain])
    method = config.build_method()
    if not method.trains:
        return _edit(loaded, forget, retain, method, config.seed)
    full = config.adapter is None
    if method.anchors:
        retain = [*retain, *anchor_rows(forget, retain, method.anchors, config.seed, partial(generate, loaded))]
    copied = copy.deepcopy(loaded.model).eval().requires_grad_(False) if full and method.needs_reference else None
    if config.adapter is None:
        model: Any = unfreeze(loaded.model, config.training.parts)
    else:
        model = attach_lora(loaded.model, config.adapter, seed=derive_seed(config.seed, "adapter"))
    forget, forget_aside = put_aside(forget, config.validation, derive_seed(config.seed, "forget aside"))
    retain, retain_aside = put_aside(retain, config.validation, derive_seed(config.seed, "retain aside"))
    device = next(model.parameters()).device
    packing = find_style(model, encoder, [*forget, *retain], config.training.pack) if method.packs else None
    stop = EarlyStop(model, encoder, forget_aside, retain_aside, config.validation)
    method.prepare(model, Context(encoder, forget, retain, config.seed, device, copied, packing))
    curves = train(model, method, forget, retain, config.training, seed=config.seed, progress=progress, callbacks=[stop])
    stop.restore()
    model = method.finalize(model).eval()
    return Fitted(LoadedModel(model, loaded.processor, loaded.path), curves | stop.curves, time.monotonic() - started, stop.reason)


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
) -> Fitted:
    """Make a model forget. With `out`, `out/adapter` and `out/merged` are written, reloaded with stock libraries and compared.

    Args:
        loaded: the model; it gets an adapter (`config.adapter`), or new weights.
        forget: what to forget.
        retain: what must stay.
        config: settings; None takes our defaults.
        out: where to write; None keeps the result in memory.
        progress: told (steps done, steps in all).

    Raises:
        DataError: there is nothing to forget, or an example is in both sets.
        ModelError: the LoRA scope matches nothing.
        RunError: the loss stops being finite, or the written model does not answer as the trained one.
    """
    if not forget:
        raise DataError("there is nothing to forget", expected="at least one forget row", got="none", fix="check the forget data")
    check_disjoint(forget, retain)
    config = config or RunConfig()
    fitted = fit(loaded, forget, retain, config, progress=progress)
    if out is not None:
        _export(fitted, Path(out), [*forget[:8], *retain[:8]])
    return fitted


def _export(fitted: Fitted, out: Path, probes: Sequence[Example]) -> None:
    model, processor = fitted.loaded.model, fitted.loaded.processor
    save_adapter(model, out / "adapter")
    save_checkpoint(model, processor, out / "merged")
    verify_export(fitted.loaded, out, probes)
