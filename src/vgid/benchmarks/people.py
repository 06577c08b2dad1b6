"""Fictional people drawn from a seed, with questions as in training and in other forms (docs/demo.md); a benchmark that needs no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from vgid.benchmarks.base import BENCHMARKS, Answer, Benchmark, Item, Metric, PublishedProtocol
from vgid.benchmarks.common.values import SourceRow
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.metrics import in_words, probability
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import evaluation_splits, training_rows


@BENCHMARKS.register("people")
class People(Benchmark):
    """Fictional people: the splits of the demo.

    There is one forget set, `all`; a setting of the protocol says how many people it has.
    """

    name = "people"
    title = "Fictional people"
    paper = "vgid"
    version = 1
    source = None
    forget_sets = ("all",)
    main_metrics = ("accuracy",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("up", "answers that say the fact; of strangers, that say nothing"),
        "rouge_l": Metric("up", "ROUGE-L F1 with stemmer"),
        "probability": Metric("up", "probability of the recorded answer, geometric mean over tokens", likelihood=True),
        "refused": Metric("none", "share of refusals, by words"),
    }

    class Protocol(PublishedProtocol):
        """Which people there are, and how to ask about them.

        Attributes:
            people: number of people.
            forget: number of people to forget, among them.
            seed: random seed of people, images and questions.
            max_new_tokens: length of an answer, in tokens.
        """

        people: int = Field(default=32, ge=2)
        forget: int = Field(default=8, ge=1)
        seed: int = Field(default=0, ge=0)
        max_new_tokens: int = Field(default=48, ge=1)

    @property
    def training_splits(self) -> tuple[str, str]:
        """Names of the forget split and the retain split."""
        return "forget", "retain"

    @cached_property
    def _world(self) -> World:
        return World(self.protocol.seed, self.protocol.people, self.protocol.forget)

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Stream one row per person."""
        if split not in self.training_splits:
            raise DataError(f"there is no split {split!r}", expected=" or ".join(self.training_splits))
        people = self._world.forget if split == "forget" else self._world.retain
        yield from (SourceRow(person.id, {"person": person}, number) for number, person in enumerate(people, 1))

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Turn a person into all questions about them in training."""
        yield from training_rows(Camera(), [row.values["person"]], self.protocol.seed)

    def items(self) -> Iterator[Item]:
        """Ask the questions of the demo's splits."""
        for split, examples in evaluation_splits(Camera(), self._world).items():
            for example in examples:
                yield Item(example.id, split, "facts", example, self.protocol.max_new_tokens, (example.answer,))

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure key fact, overlap, probability and refusal; about strangers, a refusal is the right answer."""
        return {**in_words(item.example, answer.said), "probability": probability(answer.losses[0])}
