"""The contract of metrics: each gives every forget row a number, and the mean over the rows is the metric's value.

A metric of knowledge is higher for a model that knows more, whatever its paper calls good, so that all can be compared (`vgid metrics
meta`). Metrics read one model through a `Reading`, which asks and scores it once for all of them.

Shapes: t tokens of one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, Literal

from vgid.attacks.asking import MAX_NEW_TOKENS
from vgid.attacks.base import Material
from vgid.attacks.scores import TokenLosses, token_losses
from vgid.data.example import Example
from vgid.evaluation.generation import generate
from vgid.evaluation.sampling import Sampling
from vgid.models.loading import LoadedModel
from vgid.registry import Registry

Measures = Literal["knowledge", "membership", "rebound", "text"]
"""What a metric is about: whether the model knows the facts; whether it has learned the rows; how far facts come back after other
training; what its answers are like, whatever they say."""
Reads = Literal["answers", "probabilities", "weights"]
"""What a metric needs of the model: its answers, the probabilities of given answers, or its weights."""
Need = Literal["unseen", "reference"]
"""What a metric needs besides forget and retain rows: rows about people that no model was trained on; a model that never saw the rows."""


class Reading:
    """One model and the rows that metrics ask it; what several metrics need is computed once.

    Args:
        loaded: the model; it is left unchanged.
        material: forget and retain rows, and unseen rows where there are some.
        reference: the same rows and a model that never saw them; None where there is none.
        sampling: how answers are drawn; None takes the likeliest tokens.
    """

    def __init__(
        self, loaded: LoadedModel, material: Material, reference: Reading | None = None, *, sampling: Sampling | None = None
    ) -> None:
        self.loaded, self.material, self.reference, self._sampling = loaded, material, reference, sampling

    @cached_property
    def answers(self) -> Mapping[str, str]:
        """The model's answers to the forget rows' questions, by row id."""
        rows = self.material.forget
        said = generate(self.loaded, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=self.material.batch_size, sampling=self._sampling)
        return {row.id: text for row, text in zip(rows, said, strict=True)}

    @cached_property
    def tokens(self) -> Mapping[str, TokenLosses]:
        """The scores of the recorded answers of forget and unseen rows, token by token and without the end of the turn, by row id."""
        rows = [*self.material.forget, *self.material.unseen]
        scored = token_losses(self.loaded, rows, self.material.batch_size)
        return {row.id: self._words(row, each) for row, each in zip(rows, scored, strict=True)}

    def _words(self, row: Example, scored: TokenLosses) -> TokenLosses:
        """The scores of an answer up to its last token that is text: what ends a turn follows from the template, not from the fact."""
        tokenizer = self.loaded.processor.tokenizer
        count = len(scored.tokens)
        while count > 1 and not tokenizer.decode(scored.tokens[count - 1 : count], skip_special_tokens=True).strip():
            count -= 1
        return TokenLosses(*(column[:count] for column in scored))

    def above_unseen(self, signal: Callable[[Reading, Example], float]) -> dict[str, float]:
        """By forget row, the share of unseen rows with a lower signal, ties counting half: the mean over the rows is the AUC.

        Args:
            signal: gives a number that is higher for rows that were learned.

        Returns:
            Shares in [0, 1] by id of a forget row; empty without unseen rows.
        """
        others = [signal(self, row) for row in self.material.unseen]
        return {row.id: above(signal(self, row), others) for row in self.material.forget} if others else {}


def above(value: float, others: Sequence[float]) -> float:
    """The share of `others` below `value`, ties counting half, in [0, 1]."""
    return sum((other < value) + 0.5 * (other == value) for other in others) / len(others)


class Metric:
    """Base class of all metrics. A metric is one file with a class that is registered by `@METRICS.register(name)`.

    The first line of the class's docstring is its summary in lists.
    """

    measures: ClassVar[Measures]
    """What the metric is about."""
    reads: ClassVar[Reads]
    """What the metric needs of the model."""
    unit: ClassVar[str]
    """Unit and range of its value, in words."""
    scale: ClassVar[float] = 1.0
    """Distance from a model that knows nothing to one that knows all, at most."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """What the metric needs besides forget and retain rows; without it the metric does not apply."""
    paper: ClassVar[str] = ""
    """Source: an arXiv number, or what the literature calls it."""

    def run(self, reading: Reading) -> Mapping[str, float]:
        """Measure one model.

        Args:
            reading: the model and its rows.

        Returns:
            A finite number by id of a forget row; rows to which the metric does not apply are missing.
        """
        raise NotImplementedError

    def applies(self, reading: Reading) -> bool:
        """Whether everything is there that the metric needs."""
        there = {"unseen": bool(reading.material.unseen), "reference": reading.reference is not None}
        return all(there[need] for need in self.needs)


METRICS: Registry[type[Metric]] = Registry("metric", base=Metric)
