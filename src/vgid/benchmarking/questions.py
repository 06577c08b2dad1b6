"""Benchmarks and own rows for other harnesses: which questions there are, and what an answer to one of them is worth.

A harness asks and stores; the metrics are those of `vgid evaluate`, apart from those that need likelihoods, which it does not give.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.benchmarking.asking import compute_figures, mean_figures
from vgid.benchmarking.splits import open_benchmark
from vgid.benchmarks.base import Answer, Answered, Benchmark, Figure, Item, Metric, without_pictures
from vgid.benchmarks.common.values import SourceRow
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.errors import ConfigError
from vgid.evaluation.metrics import in_words

PLACES = ("data", "forget", "retain")
"""What may name a file or a folder."""


class OwnRows(Benchmark):
    """Own rows: questions to forget and questions to keep, asked as they stand.

    Args:
        splits: files or folders with rows, by split.
    """

    name = "rows"
    title = "Own rows"
    paper = ""
    version = 1
    source = None
    forget_sets = ("all",)
    training_splits = ("forget", "retain")
    main_metrics = ("accuracy",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("up", "answers that say the fact; of strangers, that say nothing"),
        "rouge_l": Metric("up", "ROUGE-L F1 with stemmer"),
        "refused": Metric("none", "share of refusals, by words"),
    }

    def __init__(self, splits: Mapping[str, str]) -> None:
        super().__init__()
        self._splits = dict(splits)

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Read the rows of a split."""
        for number, row in enumerate(load_examples(self._splits[split], name=split), 1):
            yield SourceRow(row.where, {"example": row}, number)

    def expand(self, row: SourceRow, split: str) -> Iterator[Example]:
        """Take a row as it is."""
        yield row.values["example"]

    def items(self) -> Iterator[Item]:
        """Ask every row."""
        for split in self._splits:
            for row in self.examples(split):
                yield Item(f"{split}/{row.id}", split, "rows", row, MAX_NEW_TOKENS)

    def measure(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """Measure key fact, overlap and refusal; about strangers, a refusal is the right answer."""
        return in_words(item.example, answer.said)


def describe(**choice: Any) -> str:
    """Write down what is asked, so that a harness can store it and run elsewhere: as `opened` reads it, with whole paths."""
    given = {name: value for name, value in choice.items() if value is not None}
    places = {
        name: str(Path(given[name]).resolve()) for name in ("data", "forget", "retain") if name in given and Path(given[name]).exists()
    }
    return json.dumps(given | places, sort_keys=True)


@lru_cache(maxsize=4)
def opened(described: str) -> tuple[Benchmark, Mapping[str, Item]]:
    """Open what `describe` wrote down.

    Args:
        described: JSON with `forget` and `retain` (files or folders with rows; one of them is enough), or with the `name` of a benchmark
            and, as it needs them, `data`, `forget_part` and `protocol`.

    Returns:
        The benchmark, and its questions that are answered in words, without pictures, by key.

    Raises:
        ConfigError: there is nothing to ask, or figures need a reference model.
        DataError: rows are bad.
    """
    choice = json.loads(described)
    if "name" in choice:
        benchmark = open_benchmark(choice["name"], choice.get("data"), choice.get("forget_part"), choice.get("protocol"))
    else:
        splits = {split: choice[split] for split in ("forget", "retain") if split in choice}
        benchmark = OwnRows(splits)
        if not splits:
            raise ConfigError("there is nothing to ask", expected="rows to forget, rows to keep, or a benchmark", got="none")
    if benchmark.needs_reference:
        raise ConfigError(
            f"{benchmark.title} compares with a reference model, and a harness asks one model",
            expected="a protocol without this comparison",
            fix="set forget_quality to false in the protocol",
        )
    return benchmark, {item.key: without_pictures(item) for item in asked(benchmark)}


def asked(benchmark: Benchmark) -> Iterator[Item]:
    """Stream the questions that are answered in words, with their pictures."""
    return (item for item in benchmark.items() if item.max_new_tokens)


def measured(described: str, key: str, said: str) -> dict[str, float]:
    """Measure one answer.

    Args:
        described: what is asked, from `describe`.
        key: the question's key.
        said: the answer.

    Returns:
        The metrics by name, each in [0, 1], without those that need likelihoods.
    """
    benchmark, items = opened(described)
    return _in_words(benchmark, benchmark.measure(*_answered(items[key], said)))


def figures(described: str, said: Mapping[str, str]) -> list[Figure]:
    """Average answers by split, task and metric, as `vgid evaluate` does, without metrics that need likelihoods.

    Args:
        described: what was asked, from `describe`.
        said: answers by the question's key, in any order.

    Returns:
        The means; of all questions also the benchmark's aggregates.
    """
    benchmark, items = opened(described)
    answered = [_answered(item, said[key]) for key, item in items.items() if key in said]
    whole = len(answered) == len(items)
    found: Sequence[Figure] = compute_figures(benchmark, answered) if whole else mean_figures(benchmark, answered, seed=0)
    return [figure for figure in found if not benchmark.metrics[figure.metric].likelihood]


def _answered(item: Item, said: str) -> Answered:
    return Answered(item, Answer(said, (1.0,) * len(item.candidates)))  # no metric that is kept depends on these losses


def _in_words(benchmark: Benchmark, values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not benchmark.metrics[name].likelihood}
