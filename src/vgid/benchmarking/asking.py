"""Ask a model a benchmark's questions, batch by batch, and turn its answers into figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import Any

from vgid.benchmarking.store import AnswerStore, data_fingerprint
from vgid.benchmarks.base import Answered, Benchmark, Figure, Item, by_task, without_pictures
from vgid.errors import ConfigError, DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import score
from vgid.evaluation.statistics import bootstrap_ci
from vgid.models.loading import LoadedModel
from vgid.progress import Progress
from vgid.results import versions

CHUNK = 512
"""Questions that are held at once with their encoded images: about 100 MB at 200 kB per image."""
SCORED_AT_ONCE = 128
"""Questions whose candidates are scored between two writes to the store; they are sorted into batches of similar length."""


def check_items(benchmark: Benchmark) -> tuple[int, str]:
    """Read every question once, before a model is loaded.

    Returns:
        The number of questions, and SHA-256 of all of them with their images.

    Raises:
        DataError: a row is bad, a key is used twice, or there are no questions.
    """
    keys: set[str] = set()

    def once() -> Iterator[Item]:
        for item in benchmark.items():
            if item.key in keys:
                raise DataError("two questions have the same key", where=item.example.where, fix="remove rows that a split holds twice")
            keys.add(item.key)
            yield item

    fingerprint = data_fingerprint(once())
    if not keys:
        raise DataError(f"{benchmark.title} has no questions here", where=benchmark.place.root, expected="at least one")
    return len(keys), fingerprint


def run_fingerprint(benchmark: Benchmark, data: str, weights: str) -> str:
    """Return a digest of all that answers depend on; stored answers with another digest are not reused.

    Args:
        benchmark: the benchmark with its protocol and forget set.
        data: fingerprint of the questions, from `check_items`.
        weights: fingerprint of the model, from `model_fingerprint`.

    Returns:
        SHA-256 of these and of the versions of the packages that compute answers.
    """
    protocol = benchmark.protocol.model_dump(mode="json")
    parts = [benchmark.name, benchmark.version, benchmark.forget_set, protocol, data, weights, versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def ask(
    benchmark: Benchmark, loaded: LoadedModel, store: AnswerStore, *, total: int, batch_size: int = 64, on_progress: Progress | None = None
) -> list[Answered]:
    """Ask every question that the store has no answer to.

    Args:
        benchmark: the benchmark.
        loaded: the model to ask.
        store: holds the answers so far, and gets the new ones.
        total: number of questions, for progress.
        batch_size: questions that are asked at once.
        on_progress: called with (questions answered, `total`).

    Returns:
        The answers to all questions, in the benchmark's order.

    Raises:
        ConfigError: the batch size is not positive.
        DataError: the processor refuses a row, or it does not fit the model's context.
    """
    if batch_size < 1:
        raise ConfigError("the batch size must be positive", expected="at least 1", got=str(batch_size))
    answered: list[Answered] = []
    for chunk in _chunks(benchmark.items(), CHUNK):
        _generate(loaded, [item for item in chunk if item.max_new_tokens and store.said(item.key) is None], store, batch_size)
        _score(loaded, [item for item in chunk if item.candidates and store.losses(item.key) is None], store, batch_size)
        answered += [Answered(without_pictures(item), store.answer(item)) for item in chunk]
        if on_progress is not None:
            on_progress(len(answered), total)
    return answered


def _generate(loaded: LoadedModel, items: Sequence[Item], store: AnswerStore, batch_size: int) -> None:
    for tokens in sorted({item.max_new_tokens for item in items}):
        group = [item for item in items if item.max_new_tokens == tokens]

        def keep(places: Sequence[int], said: Sequence[str], group: Sequence[Item] = group) -> None:
            for place, answer in zip(places, said, strict=True):
                store.add_said(group[place].key, answer)

        generate(loaded, [item.example for item in group], max_new_tokens=tokens, batch_size=batch_size, on_answers=keep)


def _score(loaded: LoadedModel, items: Sequence[Item], store: AnswerStore, batch_size: int) -> None:
    for group in _chunks(items, SCORED_AT_ONCE):
        asked = [replace(item.example, answer=candidate) for item in group for candidate in item.candidates]
        scores = iter(score(loaded, asked, batch_size))
        for item in group:
            store.add_losses(item.key, tuple(each.loss for each in islice(scores, len(item.candidates))))


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def compute_figures(
    benchmark: Benchmark, answered: Sequence[Answered], reference: Sequence[Answered] | None = None, seed: int = 0
) -> list[Figure]:
    """Average a model's answers by split, task and metric, and add the benchmark's aggregates.

    Args:
        benchmark: the benchmark.
        answered: the model's answers to all questions.
        reference: the reference model's answers, for benchmarks that need them.
        seed: random seed of the intervals, which draw people.

    Returns:
        The means with 95 % intervals, then the aggregates.

    Raises:
        DataError: an aggregate needs a reference model and there is none.
    """
    return mean_figures(benchmark, answered, seed) + benchmark.aggregates(answered, reference, seed)


def mean_figures(benchmark: Benchmark, answered: Sequence[Answered], seed: int) -> list[Figure]:
    """Average a model's answers, to all questions or to some, by split, task and metric, with 95 % intervals over people."""
    made: list[Figure] = []
    for (split, task), group in by_task(answered).items():
        measured, people = benchmark.measure_all(group), [each.subject for each in group]
        for metric in measured[0]:
            values = [metrics[metric] for metrics in measured]
            made.append(Figure(split, task, metric, fmean(values), *bootstrap_ci(values, people, seed=seed), len(values)))
    return made


def figures_as_json(benchmark: Benchmark, figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures for `results.json`; they hold nothing of the questions and answers."""
    return [
        {
            **{"split": f.split, "task": f.task, "metric": f.metric, "value": f.value, "n": f.n},
            "interval": None if f.low is None else [f.low, f.high],
            "direction": benchmark.metrics[f.metric].wanted(f.split),
        }
        for f in figures
    ]
