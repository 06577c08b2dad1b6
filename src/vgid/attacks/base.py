"""What an attack is: it tries to get facts back out of a model that is said to have forgotten them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from vgid.data.example import Example
from vgid.models.loading import LoadedModel
from vgid.registry import Registry

Access = Literal["black box", "scores", "hidden states", "weights"]
"""What an attacker must get hold of: answers; probabilities of given answers; what goes on inside; the weights."""
Measure = Literal["facts", "membership"]


class Settings(BaseModel):
    """An attack's budget: fixed before it starts, the same for every model it is tried on."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Material:
    """What attacks work with.

    Attributes:
        forget: what is attacked.
        retain: what must still be known; the control.
        seed: everything random follows from it.
        unseen: rows about people that no model ever met.
        rewordings: other wordings of a question, by the question or by the id of its row.
        batch_size: rows that are asked at once.
    """

    forget: Sequence[Example]
    retain: Sequence[Example]
    seed: int = 0
    unseen: Sequence[Example] = ()
    rewordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_size: int = 64

    @property
    def everything(self) -> list[Example]:
        """Forget and retain rows."""
        return [*self.forget, *self.retain]


@dataclass(frozen=True)
class Outcome:
    """What came of an attack, by the id of the row.

    Attributes:
        forget: of the forget rows that were scored: 1 where the fact came back, 0 where it did not; for membership, how much the row
            looks like one that was learned.
        control: the same of retain rows; for membership, of rows nobody ever learned.
        chance: what a model that knows nothing gets by guessing.
        fitted_on: whose rows the attack was fitted on; none of them is scored.
    """

    forget: Mapping[str, float]
    control: Mapping[str, float]
    chance: float = 0.0
    fitted_on: frozenset[str] = frozenset()


Outcomes = dict[str, Outcome]
"""One outcome for each level of the attack (a budget, a variant); empty where the attack does not apply to the data or the model."""

C = TypeVar("C", bound=Settings)


class Attack(Generic[C]):
    """Base of all attacks. One file and one `@ATTACKS.register(name)` line make an attack.

    `run` leaves the model it is given bit for bit as it was; whoever changes weights does so on a `plain_copy`.
    """

    Config: ClassVar[type[Settings]]
    access: ClassVar[Access]
    finds: ClassVar[str]
    """Which sham it unmasks, in words."""
    measures: ClassVar[Measure] = "facts"
    full: ClassVar[Mapping[str, Any]] = {}
    """Settings of the full profile, which follows published budgets; the defaults are the quick one."""

    def __init__(self, config: C) -> None:
        self.config = config

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Attack one model. A pure function of model, material and config."""
        raise NotImplementedError


ATTACKS: Registry[type[Attack[Any]]] = Registry(
    "attack",
    group="vgid.attacks",
    base=Attack,
    must={"Config": Settings, "access": get_args(Access), "finds": str, "measures": get_args(Measure)},
)


def person(example: Example) -> str:
    """Whose row it is; a row without a subject is somebody of its own."""
    return example.subject or f"\0{example.id}"


def split_people(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Rows of `share` of the people, to fit on, and those of all others, to score on; at least one person on either side of two."""
    people = sorted({person(example) for example in examples})
    Random(f"people/{seed}").shuffle(people)
    count = min(len(people) - 1, max(1, round(share * len(people))))
    chosen = set(people[: max(0, count)])
    return [e for e in examples if person(e) in chosen], [e for e in examples if person(e) not in chosen]


def sample_rows(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` rows, as many of each person as there are to be had; in the order given."""
    if len(examples) <= count:
        return list(examples)
    rng = Random(f"rows/{seed}")
    queues: dict[str, list[Example]] = {}
    for example in examples:
        queues.setdefault(person(example), []).append(example)
    for rows in queues.values():
        rng.shuffle(rows)
    chosen: set[str] = set()
    while len(chosen) < count:
        for name in sorted(queues):
            if queues[name] and len(chosen) < count:
                chosen.add(queues[name].pop().id)
    return [example for example in examples if example.id in chosen]


def plain_copy(loaded: LoadedModel) -> LoadedModel:
    """A copy of the model with its adapter, if it has one, merged: what an attacker who has the weights starts from."""
    model = copy.deepcopy(loaded.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return replace(loaded, model=model.eval())
