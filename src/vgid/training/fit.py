"""Training: run a configured method on a model. What comes before (data, preflight) and after (export) is in `vgid.unlearning`."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vgid import processes
from vgid.config import RunConfig
from vgid.curves import Curves
from vgid.data.augmentation import augmented_rows
from vgid.data.example import Example
from vgid.data.probes import THIN, pictures_aside, probe_rows
from vgid.data.replay import ENOUGH, REPLAY, Base, counts_by_kind, replay_kind, replay_rows
from vgid.data.self_distilled import Questions, answered_together, self_distilled_rows
from vgid.errors import ConfigError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal
from vgid.evaluation.sampling import Sampling
from vgid.methods.base import Context, Method
from vgid.models.adapters import attach_lora
from vgid.models.inversion import imagined_pictures
from vgid.models.loading import LoadedModel, load_model
from vgid.models.memory_saving import checkpointing, compiled
from vgid.models.packing_check import find_style
from vgid.models.pictures import find_pictures
from vgid.models.quantisation import is_quantised
from vgid.models.structure import unfreeze
from vgid.outcome import Aside
from vgid.progress import Progress
from vgid.seeds import derive_seed
from vgid.training.automatic import compiles, learning_rate_for, memory_plan, precision_on
from vgid.training.checkpointing import Checkpoints
from vgid.training.fingerprint import fingerprint
from vgid.training.gradient_step import cuts_by_tokens
from vgid.training.trainer import count_steps, train
from vgid.training.validation import EarlyStop, RecallCurves, rows_of_subjects, split_validation

ANSWERED_AT_ONCE = 128
"""Questions that the base answers in one batch before training; chosen by hand, those that memory does not hold are halved."""

log = logging.getLogger("vgid")


@dataclass(frozen=True)
class Fitted:
    """The result of training.

    Attributes:
        loaded: the trained model (with its adapter, if it has one) and its processor.
        curves: part of the loss, recall or drift of a held-out part, to points (step, value).
        seconds: time that training took, in seconds.
        stopped: why training ended, in words.
        automatic: what settings that are `auto` came to.
        protected_by: number of retain rows by kind (`vgid.data.replay`), "" for rows that the user gave.
        aside: what is left of retain held-out rows, never trained on; None where there are none.
    """

    loaded: LoadedModel
    curves: Curves
    seconds: float
    stopped: str
    automatic: Mapping[str, Any] = field(default_factory=dict)
    protected_by: Mapping[str, int] = field(default_factory=dict)
    aside: Aside | None = None


def fit(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    config: RunConfig,
    *,
    held_out: Sequence[Example] = (),
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Fitted:
    """Run the configured method. The model passed in is changed in place: it gets the adapter, or new weights.

    Args:
        loaded: the model. Where parameters are sharded over processes, it stays so, and all processes must use the result together.
        forget: rows to forget.
        retain: rows to keep.
        config: settings of the run.
        held_out: rows about what must be forgotten that are not trained on; early stopping asks them in place of a part of `forget`. Where
            nothing is forgotten (fine-tuning), all rows are trained on, nothing stops early, and the recall of both sets is measured.
        progress: called with (steps done, steps in all).
        checkpoint: folder for checkpoints; None keeps none, and leaves signals alone.
        resume: go on from the checkpoint in it, if there is one.

    Returns:
        The trained model, loss curves, and why training ended.

    Raises:
        ConfigError: the method cannot train what it is to train, or the model is held in 4 bits and the configuration says otherwise, or
            the other way round.
        DataError: the processor refuses rows of a kind, or the method lacks retain data.
        ModelError: the LoRA scope matches nothing.
        RunError: the loss stops being finite, memory does not suffice, or nothing in the model is found worth an edit.
        OutputError: the checkpoint is of another run, or one cannot be written.
        StoppedError: a signal asked the run to stop.
    """
    started = time.monotonic()
    processes.start()
    encoder = loaded.encoder
    encoder.check([*forget, *retain])
    method = config.build_method()
    if not method.trains:
        _check_whole(loaded.model)
        return _edit(loaded, forget, retain, method, config.seed)
    unsupported = method.unsupported()
    _check_compiled(method, config)
    _check_quantised(loaded.model, config)
    device = next(loaded.model.parameters()).device
    given = config.training
    rate = learning_rate_for(loaded.model, given.learning_rate, adapter=config.adapter is not None)
    training = given.model_copy(update={"precision": precision_on(device, given.precision), "learning_rate": rate})
    config = config.model_copy(update={"training": training})
    kept = _checkpoints(checkpoint, resume, config, [*forget, *held_out], retain, loaded.model)
    watches = bool(forget) and config.validation.every > 0
    of_subjects = rows_of_subjects(forget, retain, derive_seed(config.seed, "subjects")) if watches else []
    added, probes = _additional_rows(method, forget, retain, config, loaded)
    retain = [*retain, *added]
    sharded = processes.shards(training.shard)
    own_weights = config.adapter is None or config.adapter.whole_projector  # without the adapter, the model then is not the base
    copied = _frozen_copy(loaded, sharded) if own_weights and method.needs_reference else None
    if sharded and not processes.is_sharded(loaded.model):
        processes.shard(loaded.model)
    model = _trainable(loaded, config)  # after sharding: an adapter is small, and whole in every process
    cuts = cuts_by_tokens(method, sharded=sharded, by_engine=processes.uses_deepspeed())
    at_once = training.forget_batch + training.retain_rows
    at_once = min(at_once, training.micro_batch or at_once)
    plan = memory_plan(model, encoder, [*forget, *retain], training, at_once, cuts=cuts)
    if training.max_tokens == "auto":
        training = training.model_copy(update={"max_tokens": plan.max_tokens})
    forget_held_out = list(held_out)
    if not held_out:
        forget, forget_held_out = split_validation(forget, config.validation, derive_seed(config.seed, "forget aside"))
    # Of the rows that the base was asked for to keep none is held out: probes show what is lost.
    replayed = [row for row in added if REPLAY in row.tags]
    own = retain[: len(retain) - len(added)] + [row for row in added if REPLAY not in row.tags]
    retain_held_out = probes
    if forget:  # fine-tuning learns every row
        own, held_out_rows = split_validation(own, config.validation, derive_seed(config.seed, "retain aside"))
        retain, retain_held_out = [*own, *replayed], [*held_out_rows, *probes]
    packing = find_style(model, encoder, [*forget, *retain], training.pack) if "packing" not in unsupported else None
    stop: EarlyStop | RecallCurves
    if forget:
        # Of a few rows none can be held out; then those that are trained on show whether they are still recalled.
        watched = forget_held_out or forget[: config.validation.rows if config.validation.every else 0]
        least = training.min_steps if training.steps is None else 0
        stop = EarlyStop(model, encoder, watched, retain_held_out, config.validation, least, of_subjects)
    else:
        stop = RecallCurves(model, encoder, {"learned": retain, "left out": forget_held_out}, config.validation, config.seed)
    pictures = find_pictures(model, encoder, [*forget, *retain])
    method.prepare(model, Context(encoder, forget, retain, config.seed, device, copied, packing, pictures))
    steps = count_steps(training, len(forget), len(retain))
    whole = not sharded and not is_quantised(loaded.model)
    compiling = compiles(given.torch_compile, device, steps, supported=whole and "compiling" not in unsupported)
    training = training.model_copy(update={"torch_compile": compiling})
    with checkpointing(model, plan.saves), compiled(model, compiling, forgiving=given.torch_compile == "auto"):
        curves = train(model, method, forget, retain, training, seed=config.seed, progress=progress, validation=stop, checkpoints=kept)
    stop.restore()
    model = method.finalize(model).eval()
    automatic = {
        "precision": training.precision,
        "gradient_checkpointing": plan.saves,
        "learning_rate": rate,
        "max_tokens": training.max_tokens,
        "torch_compile": compiling,
    }
    aside = stop.aside()
    if aside and aside.subjects_lost:
        log.warning("the model no longer knows these subjects of the retain set: %s", ", ".join(aside.subjects_lost))
    seconds, kept_by = time.monotonic() - started, counts_by_kind(retain)
    return Fitted(replace(loaded, model=model), curves | stop.curves, seconds, stop.reason, automatic, kept_by, aside)


def _additional_rows(
    method: Method[Any], forget: Sequence[Example], retain: Sequence[Example], config: RunConfig, loaded: LoadedModel
) -> tuple[list[Example], list[Example]]:
    """Rows that are added to the retain set, self-distilled, augmented and replay rows, and probes, which are not trained on."""
    seed, training = config.seed, config.training
    augmented = augmented_rows(forget, retain, method.augment, seed) if method.augment else []
    answer = partial(generate, loaded, batch_size=ANSWERED_AT_ONCE)
    base = Base(answer, partial(_sample, loaded), partial(imagined_pictures, loaded.model, loaded.encoder), is_refusal)
    met = count_steps(training, len(forget), len(retain)) * training.retain_rows if forget else 0
    distilled = replay = probes = Questions([], lambda _: [])
    if method.self_distilled:
        distilled = self_distilled_rows(forget, retain, method.self_distilled, seed)
    probing = met and config.validation.every and config.validation.probes and sum(not replay_kind(row) for row in retain) < THIN
    aside = pictures_aside(forget, retain, seed) if probing else []
    if method.replay and met:
        replay = replay_rows(forget, [row for row in retain if set(row.images).isdisjoint(aside)], method.replay, seed, base, met)
    if probing:
        probes = probe_rows(forget, aside, [*retain, *replay.rows], seed, base, min(1.0, met / ENOUGH))
    distilled_rows, replayed, probed = answered_together((distilled, replay, probes), answer)
    if replayed:
        log.info("the base was asked for rows to keep: %s", ", ".join(f"{n} {kind}" for kind, n in counts_by_kind(replayed).items()))
    return [*processes.from_first(distilled_rows), *augmented, *processes.from_first(replayed)], processes.from_first(probed)


def _sample(loaded: LoadedModel, rows: Sequence[Example], seed: int) -> list[str]:
    """One answer to each row, drawn at temperature 1; a picture and a question that several rows share are read once for all of them."""
    found: list[str] = generate(loaded, rows, batch_size=ANSWERED_AT_ONCE, sampling=Sampling(1.0, 1.0, seed))
    return found


def _checkpoints(
    folder: Path | None, resume: bool, config: RunConfig, forget: Sequence[Example], retain: Sequence[Example], model: Any
) -> Checkpoints | None:
    if folder is not None and processes.uses_deepspeed():
        if resume:
            raise ConfigError("runs under DeepSpeed cannot be resumed", fix="use the ddp or fsdp2 launch configuration")
        log.warning("under DeepSpeed no checkpoints are kept")
        return None
    return Checkpoints(folder, fingerprint(config, forget, retain, model), resume=resume) if folder is not None else None


def _check_compiled(method: Method[Any], config: RunConfig) -> None:
    found = method.unsupported().get("compiling")
    if config.training.torch_compile is True and found:
        raise ConfigError(
            f"this method, with its settings, cannot be compiled: {found.reason}",
            where="training.torch_compile",
            expected="training.torch_compile=false",
            got="training.torch_compile=true",
            fix=found.fix,
        )


def _check_whole(model: Any) -> None:
    if processes.is_sharded(model):
        raise ConfigError(
            "this method edits whole matrices, which sharded parameters are not",
            where="training.shard",
            expected="training.shard=false, and a model that fits on one device",
            got="a model that is sharded over processes",
            fix="start it without a launcher, or take a method that trains",
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


def _frozen_copy(loaded: LoadedModel, sharded: bool) -> Any:
    """A second model with the same weights, in the same shards where parameters are sharded."""
    if not processes.is_sharded(loaded.model):
        copied = copy.deepcopy(loaded.model)
        if sharded:
            processes.shard(copied)
    else:  # PyTorch cannot copy shards
        processes.gather_nothing(loaded.model)
        copied = load_model(loaded.path, dtype=loaded.model.dtype, shard=True).model
        weights = dict(loaded.model.named_parameters())
        for name, parameter in copied.named_parameters():
            processes.shard_of(parameter.detach()).copy_(processes.shard_of(weights[name].detach()))
    return copied.eval().requires_grad_(False)


def _edit(loaded: LoadedModel, forget: Sequence[Example], retain: Sequence[Example], method: Method[Any], seed: int) -> Fitted:
    """Run a method that has no loss; nothing is held out, since there is nothing to stop early."""
    started = time.monotonic()
    device = next(loaded.model.parameters()).device
    method.prepare(loaded.model.eval(), Context(loaded.encoder, forget, retain, seed, device))
    model = method.finalize(loaded.model).eval()
    edited = replace(loaded, model=model, asks=method.make_encoder(loaded.processor))
    return Fitted(edited, {}, time.monotonic() - started, "nothing to train")
