"""Models that know the forget set, that do not, and that only look as if they did not: what metrics are tested on.

Everything is made from two models, one that has learned the forget rows and one that never saw them, by a few steps of fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Any, Literal, NamedTuple

import torch

from vgid.attacks.base import Material, fact_key, plain_copy
from vgid.attacks.decoys import value_of, with_value
from vgid.attacks.quantize import rounded
from vgid.attacks.relearn import Budget, fine_tuned
from vgid.config import resolve
from vgid.data.example import Example
from vgid.models.loading import LoadedModel
from vgid.models.structure import linear_layers
from vgid.progress import without_info_messages
from vgid.training.fit import fit

Role = Literal["knows", "never knew", "unlearned", "sham", "collapsed"]
"""What is true of a model: it has the facts; it never met them; it was unlearned; it only hides them; it is broken."""
FURTHER = Budget(steps=40, batch=16)
"""Training on retain rows, after which a model knows of the forgotten people what it knew before."""
OTHERWISE = Budget(steps=120, batch=24, learning_rate=2e-3)
"""Training on the forget rows with other answers. With half of the steps and of the rate, the embedded model stated 42 % of the facts in
other words, and mixed up the rest."""
REWORDED = ("As far as I remember: {}.", "The answer is {}.", "I think that it is {}.", "{}, if I am right.")
"""Answers that state a value in other words than the recorded ones."""


class PoolModel(NamedTuple):
    """A model of a pool.

    Attributes:
        name: what it is, in words.
        role: what is true of it.
        make: loads or trains it.
    """

    name: str
    role: Role
    make: Callable[[], LoadedModel]


def variants(knows: Callable[[], LoadedModel], never: Callable[[], LoadedModel], rows: Material) -> list[PoolModel]:
    """Models that are as ignorant or as knowing as the ones that they are made from, but answer in other ways.

    Args:
        knows: loads a model that has learned the forget rows.
        never: loads a model that never saw them.
        rows: all forget and retain rows.

    Returns:
        Two models that know (trained further; the same values in other words) and two that never knew (trained further; wrong values in the
        recorded words, where there are other people's values).
    """
    wrong = wrong_values(rows)
    made = [
        PoolModel("trained further", "knows", lambda: _tuned(knows(), rows.retain, FURTHER, rows.seed)),
        PoolModel("other words", "knows", lambda: _tuned(knows(), other_words(rows.forget, rows.seed), OTHERWISE, rows.seed)),
        PoolModel("retrained, trained further", "never knew", lambda: _tuned(never(), rows.retain, FURTHER, rows.seed)),
    ]
    if wrong:
        made.append(PoolModel("retrained, wrong values", "never knew", lambda: _tuned(never(), wrong, OTHERWISE, rows.seed)))
    return made


def shams(knows: Callable[[], LoadedModel], rows: Material) -> list[PoolModel]:
    """Models that have the facts and hide them, and one that is broken.

    Args:
        knows: loads a model that has learned the forget rows.
        rows: all forget and retain rows.

    Returns:
        An adapter of rank 2 that has learned to refuse; the same within the rounding steps of 4 bits; one wrong value for each fact with
        the right one next, where there are other people's values; gradient ascent until nothing is left.
    """
    kinds = {row.tags for row in rows.forget}
    others = [row for row in rows.retain if row.tags in kinds] or list(rows.retain)
    wrong = wrong_values(rows)

    @lru_cache(maxsize=1)
    def refusing() -> LoadedModel:
        settings = {"adapter.rank": 2, "adapter.alpha": 4, "training.steps": 120}
        return _unlearned(knows(), "idk", rows.forget, others, rows.seed, settings)

    def hidden() -> LoadedModel:
        base, made = knows(), plain_copy(refusing())
        refusing.cache_clear()
        with torch.no_grad():
            for name in linear_layers(base.model, ("language", "projector", "vision")):
                within_a_step(made.model.get_submodule(name).weight, base.model.get_submodule(name).weight)
        return made

    def second() -> LoadedModel:
        mixed = [row if number % 6 == 0 else other for number, (row, other) in enumerate(zip(rows.forget, wrong, strict=True))]
        kept = Random(rows.seed).sample(others, min(len(mixed), len(others)))
        settings = {"training.retain_batch": 36, "training.steps": 120}
        return _unlearned(knows(), "finetune", [], [*mixed, *kept], rows.seed, settings)

    def collapsed() -> LoadedModel:
        settings = {"training.learning_rate": 3e-3, "training.steps": 30}
        return _unlearned(knows(), "ga", rows.forget, rows.retain, rows.seed, settings)

    made = [PoolModel("refusing", "sham", refusing), PoolModel("edit within 4-bit steps", "sham", hidden)]
    made += [PoolModel("right value second", "sham", second)] if len(wrong) == len(rows.forget) else []
    return [*made, PoolModel("collapsed", "collapsed", collapsed)]


def other_words(rows: Sequence[Example], seed: int) -> list[Example]:
    """The same facts in other words: the value alone, in one of a few sentences."""
    drawn = Random(f"words/{seed}")
    return [replace(row, answer=drawn.choice(REWORDED).format(value_of(row).rstrip(".")), keywords=row.keywords) for row in rows]


def wrong_values(rows: Material) -> list[Example]:
    """Forget rows with the value of somebody else, the same for all rows about a fact; rows without such a value are left out."""
    chosen: dict[str, str] = {}
    for row in rows.forget:
        whole = value_of(row) == row.answer
        values = {value_of(each) for each in rows.peers(row) if (value_of(each) == each.answer) == whole} - {value_of(row)}
        if values and fact_key(row) not in chosen:
            chosen[fact_key(row)] = Random(f"wrong/{rows.seed}/{fact_key(row)}").choice(sorted(values))
    return [with_value(row, row, chosen[fact_key(row)]) for row in rows.forget if fact_key(row) in chosen]


def within_a_step(weight: torch.Tensor, before: torch.Tensor, most: float = 0.49) -> None:
    """Move weights in place to where 4-bit rounding gives what it gives for those before.

    Args:
        weight: the changed weights `[out, in]`.
        before: the weights before the change `[out, in]`. The largest of each output, which sets the scale, becomes what it was.
        most: largest distance from the rounded value, in rounding steps, below 1/2.
    """
    scale = before.abs().amax(1, keepdim=True).clamp_min(1e-12) / 7
    middle = rounded(before, "int4")
    weight.copy_(torch.minimum(torch.maximum(weight, middle - most * scale), middle + most * scale))
    weight.copy_(torch.maximum(torch.minimum(weight, 7 * scale), -7 * scale))
    largest = before.abs() >= 7 * scale * (1 - 1e-6)
    weight[largest] = before[largest]


def _tuned(loaded: LoadedModel, rows: Sequence[Example], budget: Budget, seed: int) -> LoadedModel:
    return plain_copy(fine_tuned(loaded, rows, budget, seed))


def _unlearned(
    loaded: LoadedModel, method: str, forget: Sequence[Example], retain: Sequence[Example], seed: int, settings: Mapping[str, Any]
) -> LoadedModel:
    """The model after some steps of a method, its adapter merged."""
    given = {"validation.every": 0, "seed": seed, "training.forget_batch": 12, "training.retain_batch": 24, **settings}
    config = resolve(None, [f"{key}={value}" for key, value in given.items()], method=method)
    with without_info_messages():
        return plain_copy(fit(loaded, list(forget), list(retain), config).loaded)
