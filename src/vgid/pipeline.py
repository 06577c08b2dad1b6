"""From a model, a forget set and a retain set to a model that forgot: the Python side of `vgid unlearn`."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.neutral import neutral_examples, own_answers
from vgid.data.sources import check_disjoint
from vgid.errors import ConfigError, DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.methods.base import Context
from vgid.models.adapters import attach_lora
from vgid.models.economy import checkpointing, compiled
from vgid.models.export import merge_adapter, save_adapter, save_checkpoint, verify_export
from vgid.models.loading import LoadedModel
from vgid.models.packing import find_style
from vgid.models.quantisation import is_quantised
from vgid.models.structure import unfreeze
from vgid.training.seeds import derive_seed
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
) -> Fitted:
    """Run the configured method. The model passed in is changed in place: it gets the adapter, or new weights.

    Raises:
        ConfigError: when the model is held in 4 bits and the configuration says otherwise, or the other way round.
        DataError: when the processor refuses rows of a kind.
        ModelError: when the LoRA scope matches nothing.
        RunError: when the loss stops being finite.
    """
    started = time.monotonic()
    encoder = loaded.encoder
    encoder.check([*forget, *retain])
    method = config.build_method()
    full = config.adapter is None
    if is_quantised(loaded.model) != bool(config.adapter and config.adapter.quantise):
        raise ConfigError(
            "the model is not held as the configuration says",
            where="adapter.quantise",
            expected="the same for the model and its adapter",
            got=f"a model {'in 4 bits' if is_quantised(loaded.model) else 'in full'}",
            fix="give load_model the same `quantise` as the configuration",
        )
    copied = copy.deepcopy(loaded.model).eval().requires_grad_(False) if full and method.needs_reference else None
    if config.adapter is None:
        model: Any = unfreeze(loaded.model, config.training.parts)
    else:
        model = attach_lora(loaded.model, config.adapter, seed=derive_seed(config.seed, "adapter"))
    forget, forget_aside = put_aside(forget, config.validation, derive_seed(config.seed, "forget aside"))
    retain, retain_aside = put_aside(retain, config.validation, derive_seed(config.seed, "retain aside"))
    device = next(model.parameters()).device
    packing = find_style(model, encoder, [*forget, *retain], config.training.pack) if method.packs else None
    method.prepare(model, Context(encoder, forget, retain, config.seed, device, copied, packing))
    stop = EarlyStop(model, encoder, forget_aside, retain_aside, config.validation)
    with checkpointing(model, config.training.gradient_checkpointing), compiled(model, config.training.torch_compile):
        curves = train(model, method, forget, retain, config.training, seed=config.seed, progress=progress, callbacks=[stop])
    stop.restore()
    model = method.finalize(model).eval()
    return Fitted(LoadedModel(model, loaded.processor, loaded.path), curves | stop.curves, time.monotonic() - started, stop.reason)


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
        retain: what must stay; where it is empty, `config.neutral_retain` neutral rows stand in for it.
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
    retain = retain or neutral_retain(loaded, forget, config)
    fitted = fit(loaded, forget, retain, config, progress=progress)
    if out is not None:
        _export(fitted, Path(out), [*forget[:8], *retain[:8]])
    return fitted


def neutral_retain(loaded: LoadedModel, forget: Sequence[Example], config: RunConfig) -> list[Example]:
    """`config.neutral_retain` neutral rows with the model's own answers; with pictures only, for a model that takes no others.

    A model that has learned little else may name a person it must forget even here; such rows are left out, and counted.
    """
    rows = neutral_examples(config.neutral_retain, config.seed)
    try:
        loaded.encoder.check(rows)
    except DataError:
        rows = neutral_examples(config.neutral_retain, config.seed, pictures=1.0)
    answered = own_answers(rows, partial(generate, loaded)) if rows else []
    facts: set[tuple[tuple[str, ...], str]] = {((word,), "") for example in forget for word in example.keywords}
    facts |= {((), example.answer) for example in forget if not example.keywords}
    kept = [row for row in answered if not any(key_fact(row.answer, *fact) for fact in facts)]
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
