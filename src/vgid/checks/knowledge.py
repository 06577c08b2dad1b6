"""Is there something to forget, and something to teach? What the model and the teacher answer to some forget questions, as shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

from vgid.data.batching import Batch
from vgid.data.example import STRANGER, Example
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal, key_fact, normalise
from vgid.methods.base import Context, Method
from vgid.models.loading import LoadedModel

KNOWN_ACCURACY = 0.2
KNOWN_PROBABILITY = 0.5
"""A model that answers a smaller fraction of the questions, and gives recorded answers a lower mean probability of a token, does not
know the forget set. Chosen by hand: the embedded model reaches 0.00 and 0.2 before it memorises anybody, 1.00 and 0.9 after."""
DIFFERS = 0.1
"""A teacher that answers a smaller fraction of the questions differently from the model has next to nothing to teach. Chosen by hand."""


@dataclass(frozen=True)
class Knowledge:
    """What the model knows of a sample of the forget set; shares in [0, 1]."""

    n: int
    accuracy: float
    probability: float

    @property
    def known(self) -> bool:
        """Whether there is anything to forget."""
        return self.accuracy >= KNOWN_ACCURACY or self.probability >= KNOWN_PROBABILITY


@dataclass(frozen=True)
class Teacher:
    """How the teacher answers the same questions; shares in [0, 1]."""

    n: int
    differs: float
    refuses: float
    accuracy: float


def some(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw rows that have an answer; rows about strangers, who are to be refused, are left out.

    Args:
        examples: rows.
        count: rows to draw, at most.
        seed: random seed.

    Returns:
        The rows drawn.
    """
    rows = [example for example in examples if STRANGER not in example.tags]
    return rows if len(rows) <= count else Random(seed).sample(rows, count)


def ask(loaded: LoadedModel, examples: Sequence[Example], method: Method[Any], seed: int) -> tuple[Knowledge, Teacher | None]:
    """Ask the model, and the teacher of a method that has one.

    Args:
        loaded: the model before unlearning.
        examples: forget rows to ask.
        method: the configured method.
        seed: random seed of the run.

    Returns:
        What the model knows, and how the teacher answers; None without a teacher.
    """
    said = evaluate(loaded, {"forget": examples}, seed=seed)["forget"]
    knowledge = Knowledge(said.n, said.accuracy, said.probability)
    return knowledge, _ask_teacher(loaded, examples, method, seed, said)


def _ask_teacher(loaded: LoadedModel, examples: Sequence[Example], method: Method[Any], seed: int, said: SplitResult) -> Teacher | None:
    # Without a model: a method's teacher follows from the rows alone, and `prepare` of the method itself would train or allocate.
    Method.prepare(method, None, Context(loaded.encoder, examples, (), seed, next(loaded.model.parameters()).device))
    if method.teacher_prompts(tuple(examples[:1])) is None:
        return None
    taught = generate(loaded, examples, encode=lambda rows: _prompts(method, rows))
    own = [item.prediction for item in said.items]
    return Teacher(
        n=len(taught),
        differs=fmean(normalise(a) != normalise(b) for a, b in zip(own, taught, strict=True)),
        refuses=fmean(map(is_refusal, taught)),
        accuracy=fmean(key_fact(text, e.keywords, e.answer) for text, e in zip(taught, examples, strict=True)),
    )


def _prompts(method: Method[Any], rows: Sequence[Example]) -> Batch:
    prompts = method.teacher_prompts(tuple(rows))
    assert prompts is not None
    return prompts
