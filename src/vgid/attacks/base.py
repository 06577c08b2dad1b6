"""What an attack is: it tries to get facts back out of a model that is said to have forgotten them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from vgid.data.example import STRANGER, Example
from vgid.evaluation.metrics import normalise
from vgid.models.loading import LoadedModel
from vgid.registry import Registry

Access = Literal["black box", "scores", "hidden states", "weights"]
"""What an attacker must get hold of: answers; probabilities of given answers; what goes on inside; the weights."""
Measure = Literal["facts", "membership"]


class Settings(BaseModel):
    """An attack's budget: fixed before it starts, the same for every model it is tried on."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(NamedTuple):
    """An OpenAI-compatible server: its URL up to `/v1`, and the model's name there; None for the first it has."""

    url: str
    model: str | None = None


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
        pool: all rows there are, of which those above may be a sample: names, pictures, values and neighbours come from them.
        views: rows with other pictures of the same people.
        served: where the audited model is served.
    """

    forget: Sequence[Example]
    retain: Sequence[Example]
    seed: int = 0
    unseen: Sequence[Example] = ()
    rewordings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_size: int = 64
    pool: Sequence[Example] = ()
    views: Sequence[Example] = ()
    served: Endpoint | None = None

    @property
    def everything(self) -> list[Example]:
        """Forget and retain rows."""
        return [*self.forget, *self.retain]

    @property
    def known(self) -> Sequence[Example]:
        """The pool, or what is asked where there is none."""
        return self.pool or self.everything

    def peers(self, row: Example) -> list[Example]:
        """Rows about other people that ask for the same kind of fact."""
        return [other for other in self._kinds.get(kind(row), ()) if person(other) != person(row)]

    def about(self, subject: str | None) -> Sequence[Example]:
        """All rows about one subject; none where there is no subject."""
        return self._subjects.get(subject, ()) if subject else ()

    @cached_property
    def _kinds(self) -> Mapping[tuple[str, ...], Sequence[Example]]:
        return _grouped(self.known, kind)

    @cached_property
    def _subjects(self) -> Mapping[str | None, Sequence[Example]]:
        return _grouped(self.known, lambda row: row.subject)


@dataclass(frozen=True)
class Outcome:
    """What came of an attack, by the id of the row.

    Attributes:
        forget: of the forget rows that were scored: 1 where the fact came back, 0 where it did not; for membership, how much the row
            looks like one that was learned.
        control: the same of retain rows; for membership, of rows nobody ever learned.
        chance: what a model that knows nothing gets by guessing.
        fitted_on: whose rows the attack was fitted on; none of them is scored.
        agreement: how often answers are those of the audited model, for attacks that ask another one in its name.
    """

    forget: Mapping[str, float]
    control: Mapping[str, float]
    chance: float = 0.0
    fitted_on: frozenset[str] = frozenset()
    agreement: float | None = None


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
    audited_only: ClassVar[bool] = False
    """Whether it concerns the audited model alone; beside it stand the clean answers of the others."""
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


def kind(row: Example) -> tuple[str, ...]:
    """What kind of fact a row asks for: by its tags; where there are none, by the wording of the question."""
    return row.tags if row.tags else (normalise(row.question), "image" if row.images else "text")


K = TypeVar("K")


def _grouped(rows: Iterable[Example], key: Callable[[Example], K]) -> dict[K, list[Example]]:
    groups: dict[K, list[Example]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


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
    queues = _grouped(examples, person)
    for rows in queues.values():
        rng.shuffle(rows)
    chosen: set[str] = set()
    while len(chosen) < count:
        for name in sorted(queues):
            if queues[name] and len(chosen) < count:
                chosen.add(queues[name].pop().id)
    return [example for example in examples if example.id in chosen]


def sample_alike(examples: Sequence[Example], like: Sequence[Example], count: int, seed: int) -> list[Example]:
    """A sample of the rows that ask for what others do, filled up with further rows where there are too few; none asks for a refusal."""
    kinds = {kind(row) for row in like}
    rows = [row for row in examples if STRANGER not in row.tags]
    chosen = sample_rows([row for row in rows if kind(row) in kinds], count, seed)
    rest = sample_rows([row for row in rows if kind(row) not in kinds], count - len(chosen), seed) if len(chosen) < count else []
    return [*chosen, *rest]


def plain_copy(loaded: LoadedModel) -> LoadedModel:
    """A copy of the model with its adapter, if it has one, merged, and asked plainly: what an attacker who has the weights starts from."""
    model = copy.deepcopy(loaded.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return replace(loaded, model=model.eval(), asks=None)
