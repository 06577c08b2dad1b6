"""What a benchmark is: one file with its pinned source, splits, questions, metrics with their direction, and a version.

A benchmark reads rows for unlearning (`examples`), asks questions (`items`), measures an answer (`measure`), and adds figures that are
more than a mean over answers (`aggregates`). Asking, storing and averaging are the same for all benchmarks: `vgid.benchmarking.asking`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from vgid.benchmarks.common.files import Place, Source
from vgid.benchmarks.common.values import SourceRow
from vgid.data.example import Example, subject_key
from vgid.errors import DataError
from vgid.registry import Registry

Direction = Literal["up", "down", "none"]
"""The direction in which a metric is better."""


class Metric(NamedTuple):
    """A metric of a benchmark.

    Attributes:
        direction: whether more is better (`up`) or less (`down`) on data to retain; `none` where neither is.
        text: what the metric measures, for the page and `results.json`.
        on_forget: the direction on data to forget; None for the opposite of `direction`.
        likelihood: whether it is computed from likelihoods, which a model that only answers does not give.
    """

    direction: Direction
    text: str
    on_forget: Direction | None = None
    likelihood: bool = False

    def wanted(self, split: str) -> Direction:
        """Return the direction on a split."""
        if not is_forget_split(split):
            return self.direction
        opposite: dict[Direction, Direction] = {"up": "down", "down": "up", "none": "none"}
        return self.on_forget or opposite[self.direction]


class PublishedProtocol(BaseModel):
    """How a benchmark asks; the defaults are the published way, and the results name every other value as a deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def deviations(self) -> dict[str, Any]:
        """Return the settings that differ from the published ones, by name."""
        published = type(self)().model_dump(mode="json")
        return {name: value for name, value in self.model_dump(mode="json").items() if value != published[name]}


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    Attributes:
        key: name of the question, unique in the benchmark.
        split: the split that the question counts for, such as `forget`.
        task: the kind of question, such as `cloze_image`.
        example: the question as the model gets it, with its recorded answer and images.
        max_new_tokens: length of the answer in tokens, at most; 0 where the model generates none.
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
    """What a model answers to an item.

    Attributes:
        said: the generated text.
        losses: mean negative log-likelihood of each candidate, in nats per token.
    """

    said: str
    losses: tuple[float, ...] = ()


class Answered(NamedTuple):
    """An item, without its images, and a model's answer to it."""

    item: Item
    answer: Answer

    @property
    def subject(self) -> str:
        """The person whom the item is about, as the key that bootstrap intervals group by; without one, the item itself."""
        return subject_key(self.item.example)


class Figure(NamedTuple):
    """A number of the results.

    Attributes:
        split: the split that it is about.
        task: the kind of question; `all` for a figure over several.
        metric: a key of the benchmark's `metrics`.
        value: in [0, 1].
        low: lower end of the 95 % bootstrap interval over people; None where there is no interval.
        high: upper end of that interval.
        n: number of answers.
    """

    split: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


class Benchmark(ABC):
    """A benchmark over a local copy of its data.

    The first line of a subclass's docstring is its title and what it asks, `Title: ...`; the table in docs/benchmarks.md shows it.

    Args:
        place: where the data are; None for a benchmark that makes its own.
        protocol: how to ask; None for the published way.
        forget_set: the forget set, by the benchmark's own label, such as `5`; None for the first in `forget_sets`.

    Raises:
        DataError: the benchmark has no such forget set.
    """

    name: ClassVar[str]
    """The name that users type; also the name of the registry entry."""
    title: ClassVar[str]
    """The name in print."""
    paper: ClassVar[str]
    """The publication, such as `arXiv 2410.22108`; empty for none."""
    version: ClassVar[int]
    """Grows when a change makes figures incomparable; answers of another version are never reused."""
    source: ClassVar[Source | None]
    """Where the data are published; None for data that are made here or have no fixed place."""
    training: ClassVar[Source | None] = None
    """Where rows for unlearning are published, if they are not in `source`."""
    forget_sets: ClassVar[tuple[str, ...]]
    """Labels of the forget sets; the first is the default."""
    Protocol: ClassVar[type[PublishedProtocol]] = PublishedProtocol
    """Settings of the protocol with the published values as defaults."""
    metrics: ClassVar[Mapping[str, Metric]]
    """Every metric by its name in the results."""
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
        """Where the data are.

        Raises:
            DataError: none were given.
        """
        if self._place is None:
            raise DataError(f"{self.title} needs its data", expected="a folder, a file or a hub id", fix="give --data")
        return self._place

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folder or file with its data; nothing for a benchmark that makes its own."""
        return (self._place.root,) if self._place else ()

    def origin(self) -> dict[str, str | None]:
        """Return `source` (hub id) and `commit` of the data, for the results; None for data that are not from the hub."""
        return {"source": self._place.source if self._place else None, "commit": self._place.commit if self._place else None}

    # -- data for unlearning ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split, as the data have them."""

    @abstractmethod
    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream the rows of a split as they are stored.

        Raises:
            DataError: the split is not there, or of another layout.
        """

    @abstractmethod
    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn one stored row into examples for unlearning.

        Raises:
            DataError: the row is bad.
        """

    def examples(self, split: str, problems: list[DataError] | None = None) -> Iterator[Example]:
        """Stream a split's examples for unlearning.

        Args:
            split: one of `training_splits`, or another split that the data have.
            problems: a list to collect the errors of bad rows in, which are then left out; None raises the first one.

        Returns:
            The examples, in the order of the rows.

        Raises:
            DataError: the split is not there, or without `problems` a row is bad.
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
        """Whether the figures need the answers of a reference model, which never saw the forget set."""
        return False

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Stream the questions: the same questions in the same order each time."""

    @abstractmethod
    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Return the metrics of one answer by name, each in [0, 1]."""

    def measure_all(self, answered: Sequence[Answered]) -> list[Mapping[str, float]]:
        """Return the metrics of each answer to one task of one split; override it where answers are measured together."""
        return [self.measure(*each) for each in answered]

    def aggregates(self, answered: Sequence[Answered], reference: Sequence[Answered] | None, seed: int) -> list[Figure]:
        """Return the figures that are not a mean over answers.

        Args:
            answered: a model's answers to all items.
            reference: the reference model's answers to the same items; None where there is no reference.
            seed: random seed of the intervals.

        Returns:
            The figures; none unless a benchmark overrides this.

        Raises:
            DataError: a figure needs the reference, and there is none.
        """
        return []

    def knowledge(self, figures: Sequence[Figure]) -> float:
        """Return how much a model shows of what it must forget, in [0, 1]: the mean of the main metrics over the forget splits."""
        return self._mean(figures, forgotten=True)

    def utility(self, figures: Sequence[Figure]) -> float:
        """Return how much a model can do of what it must retain, in [0, 1]: the mean of the main metrics over the other splits."""
        return self._mean(figures, forgotten=False)

    def _mean(self, figures: Sequence[Figure], *, forgotten: bool) -> float:
        # A metric that points the other way counts as 1 - value. On forget splits the good direction is "down": less is known.
        counted: Direction = "down" if forgotten else "up"
        chosen = [f for f in figures if f.metric in self.main_metrics and is_forget_split(f.split) == forgotten]
        return fmean(f.value if self.metrics[f.metric].wanted(f.split) == counted else 1 - f.value for f in chosen)

    def notes(self) -> list[str]:
        """Return what a reader of the results must know, in sentences: where the protocol cannot be followed to the letter."""
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
    """Return whether a split asks for what must be forgotten, so that knowing less of it is better.

    `test` is the name of forgotten subjects in other images (MLLMU-Bench, CoVUBench); `forget_perception` asks what can be seen on images
    of forgotten people, which must be kept.
    """
    return (split.startswith("forget") and split != "forget_perception") or split == "test"


def by_task(answered: Sequence[Answered]) -> dict[tuple[str, str], list[Answered]]:
    """Group answers by (split, task), in order."""
    groups: dict[tuple[str, str], list[Answered]] = {}
    for each in answered:
        groups.setdefault((each.item.split, each.item.task), []).append(each)
    return groups


def without_pictures(item: Item) -> Item:
    """Return the item without its images, so that keeping it costs little memory."""
    return replace(item, example=replace(item.example, images=()))
