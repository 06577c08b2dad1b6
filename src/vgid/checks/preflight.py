"""The preflight: everything that can be known before training, found by looking at the model and trying it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from vgid.checks.gradients import Gradients, on_trial, try_gradients
from vgid.checks.knowledge import DIFFERS, KNOWN_ACCURACY, KNOWN_PROBABILITY, Knowledge, Teacher, ask, some
from vgid.checks.rows import Sample, Side, context_of, measure, sample_of
from vgid.config import RunConfig
from vgid.data.batching import UNBOUNDED, Encoder
from vgid.data.example import Example
from vgid.data.neutral import NEUTRAL
from vgid.errors import ConfigError, DataError, ModelError, VgidError
from vgid.memory import free_bytes, gigabytes
from vgid.methods.base import Method
from vgid.models.adapters import adapted_modules, summarise_names
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised
from vgid.models.structure import base_of, decoder_layers
from vgid.processes import is_sharded, uses_deepspeed
from vgid.training.automatic import chosen, least_tokens, precision_on
from vgid.training.fit import ANSWERED_AT_ONCE as BASE_ANSWERS_AT_ONCE
from vgid.training.gradient_step import cuts_by_tokens
from vgid.training.memory_estimate import (
    SHARE,
    Memory,
    cache_bytes,
    checkpointed_row,
    decoder_shape,
    ending_bytes,
    kept_for_backward,
    logit_bytes,
    training_bytes,
    weight_bytes,
)

HOPELESS = 4
"""A run whose step needs this multiple of the memory there is does not start; below, the estimate may be too high. Chosen by hand."""
ANSWERED_AT_ONCE = 64
"""Rows for which answers are generated together when a model is examined."""
NEW_TOKENS = 48
SEEING = {"projector", "vision"}
"""Parts that only rows with pictures reach."""
LEARNED = "learned"
"""Name of the rows of a fine-tuning, which has none to forget."""


@dataclass(frozen=True)
class Model:
    """What the model is, and what of it is trained."""

    family: str
    kind: str
    parameters: int
    trained: int
    modules: tuple[str, ...]
    """Names of the trained modules."""
    device: str
    dtype: str


@dataclass(frozen=True)
class Preflight:
    """All that was found. `errors` stop a run, `warnings` do not. Nothing in it shows forgotten data, unless that was asked for."""

    model: Model
    sides: dict[str, Side]
    context: dict[str, int | None]
    samples: dict[str, Sample]
    gradients: Gradients
    memory: Memory
    room: int | None
    fits: int | None
    knowledge: Knowledge | None
    """None where nothing is to be forgotten."""
    teacher: Teacher | None
    errors: tuple[VgidError, ...]
    warnings: tuple[str, ...]
    saves_memory: bool = False
    """Whether gradients will be checkpointed."""

    def raise_errors(self) -> None:
        """Stop here if anything is in the way.

        Raises:
            VgidError: the error, or all of them in one.
        """
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else ModelError.together(self.errors)


def check_run(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    config: RunConfig,
    *,
    sample: int = 32,
    show_forgotten: bool = False,
    allow_unknown: bool = False,
) -> Preflight:
    """Check model, data and configuration together; the model is left as it was.

    Args:
        loaded: the model that is to forget, or to be fine-tuned.
        forget: what to forget; none where the model is fine-tuned.
        retain: what must stay, or what is to be learned.
        config: settings of the run.
        sample: forget rows that the model and the teacher are asked.
        show_forgotten: show a forget row's text in the label sample.
        allow_unknown: a model that does not know the forget set is not an error.

    Returns:
        All that was found.

    Raises:
        DataError: the processor refuses rows, or rows are longer than the context; nothing is ever cut.
        ModelError: nothing is to be trained, or no chat template.
    """
    method = config.build_method()
    precision = precision_on(next(loaded.model.parameters()).device, config.training.precision)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    loaded.encoder.limited(UNBOUNDED).check([*forget, *retain])
    context = context_of(loaded.model, loaded.encoder)
    limits = [limit for limit in context.values() if limit is not None]
    encoder = loaded.encoder.limited(min(limits) if limits else None)
    sides, instruction = _measure(encoder, forget, retain, method, config.seed)
    problems = {problem.where: problem for side in sides.values() for problem in side.problems}
    if problems:
        raise DataError.together(list(problems.values()))
    knowledge, teacher = ask(loaded, some(forget, sample, config.seed), method, config.seed) if forget else (None, None)
    with on_trial(loaded.model, config) as model:
        shape = _model(loaded, model)
        gradients = try_gradients(model, loaded.encoder, _shortest(forget, retain), config.training.precision)
        free = free_bytes(torch.device(shape.device))
        memory, saves = _memory(model, loaded.encoder, sides, config, method, len(forget), free)
    there = None if free is None else free + memory.weights
    # Fine-tuning on texts leaves the parts that see as they are, which harms nothing; unlearning would miss what was asked for.
    unseen = not forget and not any(row.images for row in retain)
    errors = [] if unseen and set(gradients.dead_parts) <= SEEING else _gradient_errors(gradients, config)
    if there is not None and memory.total > HOPELESS * there:
        errors.append(_too_large(memory, there))
    if knowledge is not None and not knowledge.known and not allow_unknown:
        errors.append(_unknown(knowledge))
    found = Preflight(
        model=shape,
        sides=sides,
        context=context,
        samples=_samples(loaded.encoder, sides, instruction, show_forgotten),
        gradients=gradients,
        memory=memory,
        room=there,
        fits=None if there is None else memory.rows_that_fit(there),
        knowledge=knowledge,
        teacher=teacher,
        errors=tuple(errors),
        warnings=(),
        saves_memory=saves,
    )
    return replace(found, warnings=tuple(_warnings(found, config)))


# -- rows -----------------------------------------------------------------------------------------------------------------


def _measure(
    encoder: Encoder, forget: Sequence[Example], retain: Sequence[Example], method: Method[Any], seed: int
) -> tuple[dict[str, Side], str | None]:
    """Every set as the student is asked; the forget set also as a teacher with an instruction is."""
    instruction = method.teacher_instruction
    kept = "retain" if forget else LEARNED
    asked = {"forget": (forget, None), "teacher": (forget if instruction else (), instruction), kept: (retain, None)}
    return {name: measure(encoder, rows, said, seed=seed) for name, (rows, said) in asked.items() if rows}, instruction


def _samples(encoder: Encoder, sides: dict[str, Side], instruction: str | None, show_forgotten: bool) -> dict[str, Sample]:
    return {
        name: sample_of(
            encoder,
            side.longest_row,
            instruction if name == "teacher" else None,
            show=show_forgotten or (name == "retain" and NEUTRAL not in side.longest_row.tags),
        )
        for name, side in sides.items()
    }


def _shortest(forget: Sequence[Example], retain: Sequence[Example]) -> list[Example]:
    """A short row with a picture and a short row without one, where there are such: what a gradient is tried on."""
    kinds = ([row for row in (*forget, *retain) if bool(row.images) is seen] for seen in (True, False))
    return [min(rows, key=lambda row: (len(row.images), row.length)) for rows in kinds if rows]


# -- the model ------------------------------------------------------------------------------------------------------------


def _model(loaded: LoadedModel, trained: Any) -> Model:
    base = base_of(trained)
    names = adapted_modules(trained) or list(dict.fromkeys(n.rpartition(".")[0] for n, p in base.named_parameters() if p.requires_grad))
    parameters = [p for name, p in base.named_parameters() if ".lora_" not in name]
    return Model(
        family=base.config.model_type,
        kind=type(base).__name__,
        parameters=sum(_numel(p) for p in parameters),
        trained=sum(p.numel() for p in trained.parameters() if p.requires_grad),
        modules=tuple(names),
        device=str(next(base.parameters()).device),
        dtype=str(loaded.model.dtype).removeprefix("torch."),
    )


def _numel(parameter: Any) -> int:
    """Numbers in a parameter; one in 4 bits holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else int(parameter.numel())


def _memory(
    model: Any, encoder: Encoder, sides: dict[str, Side], config: RunConfig, method: Method[Any], forget: int, free: int | None
) -> tuple[Memory, bool]:
    """The estimate, and whether gradients are checkpointed in it; with `auto` they are where a step would not fit otherwise."""
    base, training = base_of(model), config.training
    shape = decoder_shape(base.config.get_text_config())
    longest = max((side for name, side in sides.items() if name != "teacher"), key=lambda side: side.longest)
    tokens = max(side.longest for side in sides.values())
    weights = weight_bytes(base)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    full, element = config.adapter is None, torch.finfo(base.dtype).bits // 8
    kept = kept_for_backward(model, encoder, longest.longest_row, training.precision)
    answers = encoder.batch([longest.longest_row]).answers.targets.numel()
    answered = min(max(ANSWERED_AT_ONCE, method.rows_generated_at_once), max(forget, ANSWERED_AT_ONCE))
    if (method.replay or method.self_distilled) and base.device.type == "cpu":
        # Where the memory of a GPU is not enough, fewer answers are generated at once; on a CPU the system ends the process.
        answered = max(answered, BASE_ANSWERS_AT_ONCE)
    plain = Memory(
        weights=weights.held * (2 if full and method.needs_reference else 1),
        training=training_bytes(trained, 0 if full else trained, training.optimizer, keeps_best=bool(config.validation.every)),
        once=kept.once,
        row=kept.row,
        logits=logit_bytes(answers, shape["vocabulary"]),
        rows=_rows_at_once(config, method, sides),
        answering=cache_bytes(
            answered,
            tokens + NEW_TOKENS,
            shape["layers"],
            shape["kv_heads"],
            shape["head"],
            element,
        ),
        gathered=weights.gathered,
        ending=ending_bytes(
            weights,
            0 if full else trained,
            quantised=sum(_numel(p) for name, p in base.named_parameters() if ".lora_" not in name) if is_quantised(base) else 0,
        ),
    )
    saved = replace(plain, row=checkpointed_row(kept.row, len(decoder_layers(base)), longest.longest, shape["hidden"], element))
    if free is None:
        saves = training.gradient_checkpointing is True
        return (saved if saves else plain), saves
    cuts = training.micro_batch is None and cuts_by_tokens(method, sharded=is_sharded(base), by_engine=uses_deepspeed())
    plan = chosen(
        training,
        room=SHARE * free - plain.training - plain.once,
        plain=(plain.row + plain.logits) / longest.longest,
        saved=(saved.row + saved.logits) / longest.longest if getattr(base, "supports_gradient_checkpointing", False) else None,
        step=plain.rows * longest.longest,
        least=least_tokens(next(base.parameters()).device),
        cuts=cuts,
    )
    memory = saved if plan.saves else plain
    if plan.max_tokens is not None and cuts:
        memory = replace(memory, rows=min(memory.rows, max(1, plan.max_tokens // longest.longest)))
    return memory, plan.saves


def _rows_at_once(config: RunConfig, method: Method[Any], measured: Mapping[str, Side]) -> int:
    """Rows that go through the model together: both sides of a step, the larger one, or a part of it."""
    training = config.training
    sides = (training.forget_batch, training.retain_rows if "retain" in measured else 0)
    if LEARNED in measured:
        sides = (0, training.retain_batch or training.forget_batch)
    if "splitting" in method.unsupported():
        return sum(sides)
    if config.training.micro_batch is None and method.states_terms:
        return sum(sides)
    return min(max(sides), config.training.micro_batch or max(sides))


# -- what is in the way ---------------------------------------------------------------------------------------------------


def _gradient_errors(gradients: Gradients, config: RunConfig) -> list[VgidError]:
    errors: list[VgidError] = []
    if gradients.dead_parts:
        where = "adapter.scope" if config.adapter else "training.parts"
        errors.append(
            ModelError(
                "no gradient reaches a part of the model that is to be trained",
                where=where,
                expected="a gradient in every part",
                got=f"none in {', '.join(gradients.dead_parts)}",
                fix=f"take {' and '.join(gradients.dead_parts)} out of {where}, or add rows with pictures",
            )
        )
    if config.training.gradient_checkpointing is True and not gradients.checkpointing:
        errors.append(
            ModelError(
                "gradient checkpointing does not work with this model",
                expected="the gradients that come without it",
                got=gradients.checkpointing_says,
                fix="set training.gradient_checkpointing=false",
            )
        )
    return errors


def _too_large(memory: Memory, room: int) -> ConfigError:
    return ConfigError(
        "a step needs far more memory than there is",
        where="training",
        expected=f"{room / 2**30:.1f} GiB",
        got=f"{memory.total / 2**30:,.0f} GiB for {memory.rows:,} rows that go through the model together",
        fix="set training.micro_batch, or a smaller retain_batch or forget_batch",
    )


def _unknown(knowledge: Knowledge) -> ModelError:
    return ModelError(
        "the model does not know what it is to forget",
        expected=f"at least {KNOWN_ACCURACY:.0%} of the facts, or a probability of {KNOWN_PROBABILITY} for the recorded answers",
        got=f"{knowledge.accuracy:.0%} of the facts in {knowledge.n} answers, probability {knowledge.probability:.2f}",
        fix="give the model that was trained on these rows; or add --allow-unknown if you mean it",
    )


def _warnings(found: Preflight, config: RunConfig) -> list[str]:
    warnings = []
    single = [name for name in found.gradients.unreached if name.partition(":")[0] not in found.gradients.dead_parts]
    if single:
        warnings.append(f"no gradient reaches {len(single)} modules: {summarise_names([name.partition(': ')[2] for name in single])}")
    if found.teacher is not None and found.teacher.differs < DIFFERS and found.knowledge is not None and found.knowledge.known:
        warnings.append("the teacher answers like the model itself, so it has little to teach: set a stronger noise, or an instruction")
    if LEARNED in found.sides and found.gradients.dead_parts:
        warnings.append(f"no row has a picture, so nothing is learned by {' and '.join(found.gradients.dead_parts)}")
    if not {"retain", LEARNED} & set(found.sides) and not config.neutral_retain:
        warnings.append("nothing is retained: expect the model to lose more than it should (--retain, or --recipe no-retain)")
    if found.room is not None and found.memory.total > found.room:
        warnings.append(f"this may run out of memory: {_advice(found, config)}")
    return warnings


def _advice(found: Preflight, config: RunConfig) -> str:
    """The first thing that would help."""
    memory, room = found.memory, found.room or 0
    if memory.ending > room:
        return f"its end, where the model is merged, loaded again and compared, needs {gigabytes(memory.ending)}; a larger device is needed"
    if memory.weights + memory.answering > room:
        return "answers are generated for many long rows at once; a larger device is needed"
    if not found.saves_memory and found.gradients.checkpointing:
        return "set training.gradient_checkpointing=true"
    if found.fits:
        return f"set training.micro_batch={found.fits}, which leaves the gradient as it is"
    return "not even one row fits; a smaller model, adapter.quantise=4bit or a larger device is needed"


# -- as JSON --------------------------------------------------------------------------------------------------------------

SCHEMA = "vgid.preflight/1"


def as_json(found: Preflight, *, texts: bool = True) -> dict[str, Any]:
    """The whole preflight as JSON; without `texts`, the label samples are left out."""
    per_image = [side.image_tokens for name, side in found.sides.items() if name != "teacher" and side.image_tokens]
    memory = {
        name: getattr(found.memory, name) for name in ("weights", "training", "activations", "logits", "answering", "ending", "total")
    }
    return {
        "schema": SCHEMA,
        "ready": not found.errors,
        "model": {**vars(found.model), "modules": summarise_names(found.model.modules)},
        "image_tokens": {
            "min": min(s.least for s in per_image),
            "median": median(s.median for s in per_image),
            "max": max(s.most for s in per_image),
        }
        if per_image
        else None,
        "rows": {name: {"rows": side.rows, "looked_at": side.looked_at, "longest": side.longest} for name, side in found.sides.items()},
        "context": found.context,
        "labels": {name: vars(sample) for name, sample in found.samples.items()} if texts else None,
        "gradients": {
            "modules": found.gradients.modules,
            "unreached": list(found.gradients.unreached),
            "checkpointing": found.gradients.checkpointing,
        },
        "memory": {
            **memory,
            "logits": found.memory.rows * found.memory.logits,
            "device": found.model.device,
            "there": found.room,
            "rows_at_once": found.memory.rows,
            "rows_that_fit": found.fits,
        },
        "knowledge": {**vars(found.knowledge), "known": found.knowledge.known} if found.knowledge else None,
        "teacher": vars(found.teacher) if found.teacher else None,
        "errors": [str(error) for error in found.errors],
        "warnings": list(found.warnings),
    }
