"""What a benchmark is: one file with its pinned source, splits, questions, metrics with their direction, and a version.

A benchmark reads rows for unlearning (`examples`), asks questions (`items`), measures an answer (`measure`), and adds figures that are
more than a mean over answers (`aggregates`). Asking, storing and averaging are the same for all benchmarks: `vgid.benchmarking.asking`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from vgid.benchmarks.common.files import Place, Source
from vgid.benchmarks.common.values import SourceRow
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.registry import Registry

Direction = Literal["up", "down", "none"]


class Metric(NamedTuple):
    """What a figure means, where it should go on retained data, and where on data to be forgotten (None: the other way)."""

    direction: Direction
    text: str
    on_forget: Direction | None = None

    def wanted(self, split: str) -> Direction:
        """Where it should go on a split."""
        if not is_forget_split(split):
            return self.direction
        opposite: dict[Direction, Direction] = {"up": "down", "down": "up", "none": "none"}
        return self.on_forget or opposite[self.direction]


class PublishedProtocol(BaseModel):
    """How a benchmark asks; the defaults are the published way, and every other value is a deviation that the results name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def deviations(self) -> dict[str, Any]:
        """The settings that differ from the published ones."""
        published = type(self)().model_dump(mode="json")
        return {name: value for name, value in self.model_dump(mode="json").items() if value != published[name]}


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        key: unique in the benchmark.
        split: where it belongs, such as `forget`.
        task: what is asked, such as `cloze_image`.
        example: the question as it is put, with its recorded answer and pictures.
        max_new_tokens: how long the model may answer; 0 where it is not asked to.
        candidates: answers whose likelihood is measured, in an order that the benchmark's `measure` knows.
        options: choices by letter, and other texts by name, that `measure` needs.
    """

    key: str
    split: str
    task: str
    example: Example
    max_new_tokens: int
    candidates: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


class Answer(NamedTuple):
    """What a model said, and the mean negative log-likelihood (nats a token) of each candidate."""

    said: str
    losses: tuple[float, ...] = ()


class Answered(NamedTuple):
    """An item, without its pictures, and a model's answer."""

    item: Item
    answer: Answer

    @property
    def person(self) -> str:
        """Whom it is about; an item about nobody in particular stands for itself."""
        return self.item.example.subject or f"\0{self.item.key}"


class Figure(NamedTuple):
    """A number of the results; `low` and `high` bound the 95 % bootstrap interval over people, None where there is none."""

    split: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


class Benchmark(ABC):
    """A benchmark over a local copy of its data.

    Args:
        place: where the data are; None for a benchmark that makes its own.
        protocol: how to ask; None for the published way.
        forget_set: the forget set, by the benchmark's own label, such as `5`; None for the first in `forget_sets`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    version: ClassVar[int]
    source: ClassVar[Source | None]
    training: ClassVar[Source | None] = None
    """Where rows for unlearning are published, if they are not in `source`."""
    forget_sets: ClassVar[tuple[str, ...]]
    Protocol: ClassVar[type[PublishedProtocol]] = PublishedProtocol
    metrics: ClassVar[Mapping[str, Metric]]
    main_metrics: ClassVar[tuple[str, ...]]
    """The metrics that `knowledge` and `utility` are means of."""

    def __init__(self, place: Place | None = None, protocol: PublishedProtocol | None = None, forget_set: str | None = None) -> None:
        self._place = place
        self.protocol: Any = protocol or self.Protocol()
        self.forget_set = forget_set or self.forget_sets[0]
        if self.forget_set not in self.forget_sets:
            raise DataError(f"{self.title} has no such forget set", expected=", ".join(self.forget_sets), got=repr(self.forget_set))

    @property
    def place(self) -> Place:
        """Where the data are."""
        if self._place is None:
            raise DataError(f"{self.title} needs its data", expected="a folder, a file or a hub id", fix="give --data")
        return self._place

    # -- data for unlearning ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget and the retain split."""

    @abstractmethod
    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream a split's rows."""

    @abstractmethod
    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """The examples of a row."""

    def examples(self, split: str, problems: list[DataError] | None = None) -> Iterator[Example]:
        """Stream a split's examples for unlearning.

        Raises:
            DataError: a row is bad; with `problems` bad rows are left out and put there.
        """
        for row in self.rows(split):
            try:
                made = list(self.expand(row, split))
            except DataError as problem:
                if problems is None:
                    raise
                problems.append(problem)
                continue
            yield from made

    # -- evaluation -------------------------------------------------------------------------------------------------------

    @property
    def needs_reference(self) -> bool:
        """Whether a model that never saw the forget set must be given."""
        return False

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Stream the questions; the same ones in the same order each time."""

    @abstractmethod
    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """What one answer is worth, by metric."""

    def measure_all(self, answered: Sequence[Answered]) -> list[Mapping[str, float]]:
        """What the answers to one task of one split are worth."""
        return [self.measure(*each) for each in answered]

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Figures that are no mean over answers; `reference` holds the answers of a model that never saw the forget set."""
        return []

    def knowledge(self, figures: Sequence[Figure]) -> float:
        """How much a model shows of what is to be forgotten, in [0, 1]: mean of the main metrics over those splits."""
        return self._mean(figures, forgotten=True)

    def utility(self, figures: Sequence[Figure]) -> float:
        """How much it can do of what is to be kept, in [0, 1]."""
        return self._mean(figures, forgotten=False)

    def _mean(self, figures: Sequence[Figure], *, forgotten: bool) -> float:
        """A metric that is better when low counts as 1 - value; on what is to be forgotten it is knowledge that counts."""
        wanted: Direction = "down" if forgotten else "up"
        chosen = [f for f in figures if f.metric in self.main_metrics and is_forget_split(f.split) == forgotten]
        return fmean(f.value if self.metrics[f.metric].wanted(f.split) == wanted else 1 - f.value for f in chosen)

    def notes(self) -> list[str]:
        """What a reader of the results must know."""
        return []


BENCHMARKS: Registry[type[Benchmark]] = Registry(
    "benchmark",
    group="vgid.benchmarks",
    base=Benchmark,
    must={
        "name": str,
        "title": str,
        "paper": str,
        "version": int,
        "source": object,
        "forget_sets": Sequence,
        "metrics": Mapping,
        "main_metrics": Sequence,
    },
)


def is_forget_split(split: str) -> bool:
    """Whether a split holds what is to be forgotten, so that less is better."""
    return (split.startswith("forget") and split != "forget_perception") or split == "test"


def by_task(answered: Sequence[Answered]) -> dict[tuple[str, str], list[Answered]]:
    """Answers by split and task, in order."""
    groups: dict[tuple[str, str], list[Answered]] = {}
    for each in answered:
        groups.setdefault((each.item.split, each.item.task), []).append(each)
    return groups


def without_pictures(item: Item) -> Item:
    """The same without pictures, to keep in memory."""
    return replace(item, example=replace(item.example, images=()))
