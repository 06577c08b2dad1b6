"""From a model and named sets of examples to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vgid.data.example import STRANGER, Example
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal, key_fact, probability, rouge_l
from vgid.evaluation.scoring import AnswerScore, score
from vgid.evaluation.statistics import Interval, KSResult, bootstrap_ci, ks_two_sample
from vgid.models.loading import LoadedModel

Progress = Callable[[int, int], None]
"""Told `(done, total)`, in answers generated and scored."""


@dataclass(frozen=True)
class ItemResult:
    """One example. Holds what the model said, so it may hold the very data to be forgotten."""

    example: str
    subject: str | None
    prediction: str
    accuracy: float
    rouge_l: float
    loss: float
    refused: bool


@dataclass(frozen=True)
class SplitResult:
    """Means over a split's examples, all in [0, 1]; `accuracy_ci` is the 95 % bootstrap interval over subjects."""

    n: int
    accuracy: float
    rouge_l: float
    probability: float
    refusal_rate: float
    accuracy_ci: Interval
    items: tuple[ItemResult, ...]

    def as_json(self) -> dict[str, Any]:
        """The figures for `results.json` (schema `vgid.results/1`), without the items: forgotten data must not leak."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "rouge_l": self.rouge_l,
            "probability": self.probability,
            "refusal_rate": self.refusal_rate,
            "accuracy_ci": list(self.accuracy_ci),
        }


def evaluate(
    loaded: LoadedModel,
    splits: Mapping[str, Sequence[Example]],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 64,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, SplitResult]:
    """Ask a model every question of every split, and measure the answers and how likely the recorded ones are.

    A question about the same images is asked once, in however many splits it stands. `seed` draws the bootstrap.

    Raises:
        DataError: a split is empty, or an example has nothing to look for in an answer.
        ConfigError: `max_new_tokens` or `batch_size` is not positive.
    """
    for name, examples in splits.items():
        if not examples:
            raise DataError(f"the split {name!r} is empty", expected="at least one example", fix="leave the split out")
    everything = [example for examples in splits.values() for example in examples]
    questions = {_question(example): example for example in everything}
    answers = {(_question(example), example.answer): example for example in everything}
    advance = _counter(len(questions) + len(answers), on_progress)
    said = generate(loaded, list(questions.values()), max_new_tokens=max_new_tokens, batch_size=batch_size, on_batch=advance)
    scored = score(loaded, list(answers.values()), batch_size, on_batch=advance)
    predictions, scores = dict(zip(questions, said, strict=True)), dict(zip(answers, scored, strict=True))

    def item(example: Example) -> ItemResult:
        question = _question(example)
        return _judge(example, predictions[question], scores[question, example.answer])

    return {name: summarise([item(example) for example in examples], seed) for name, examples in splits.items()}


def summarise(items: Sequence[ItemResult], seed: int = 0) -> SplitResult:
    """Means and interval of judged examples. An example without a subject counts as a subject of its own."""
    accuracies = [item.accuracy for item in items]
    return SplitResult(
        n=len(items),
        accuracy=fmean(accuracies),
        rouge_l=fmean(item.rouge_l for item in items),
        probability=fmean(probability(item.loss) for item in items),
        refusal_rate=fmean(item.refused for item in items),
        accuracy_ci=bootstrap_ci(accuracies, [item.subject or f"\0{item.example}" for item in items], seed=seed),
        items=tuple(items),
    )


def loss_ks_test(unlearned: SplitResult, retrained: SplitResult) -> KSResult:
    """Can the unlearned model be told from one that never saw the data? KS test of losses (cf. TOFU, arXiv 2401.06121).

    Raises:
        DataError: the two results are not about the same examples.
    """
    asked = [sorted(item.example for item in result.items) for result in (unlearned, retrained)]
    if asked[0] != asked[1]:
        raise DataError(
            "the two models were asked different questions",
            expected="results over the same examples",
            got=f"{len(asked[0])} and {len(asked[1])} examples, {len(set(asked[0]) & set(asked[1]))} in common",
            fix="evaluate both models on the same split",
        )
    return ks_two_sample([item.loss for item in unlearned.items], [item.loss for item in retrained.items])


def _question(example: Example) -> Hashable:
    return example.images, example.question


def _judge(example: Example, prediction: str, scored: AnswerScore) -> ItemResult:
    refused = is_refusal(prediction)
    # To a question about a stranger every "I don't know" is right, in whatever words.
    right = refused if STRANGER in example.tags else key_fact(prediction, example.keywords, example.answer)
    return ItemResult(
        example=example.id,
        subject=example.subject,
        prediction=prediction,
        accuracy=float(right),
        rouge_l=rouge_l(prediction, example.answer),
        loss=scored.loss,
        refused=refused,
    )


def _counter(total: int, on_progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    return advance
