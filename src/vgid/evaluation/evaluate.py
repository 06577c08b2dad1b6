"""Evaluate a model on named sets of examples: accuracy, overlap, probability and refusals, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vgid.data.example import Example, subject_key
from vgid.data.sources import Rows, rows_of
from vgid.errors import DataError
from vgid.evaluation.generation import generate, texts_of
from vgid.evaluation.metrics import in_words, probability
from vgid.evaluation.scoring import AnswerScore, score
from vgid.evaluation.statistics import Interval, KSResult, bootstrap_ci, ks_two_sample
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Progress


@dataclass(frozen=True)
class ItemResult:
    """Result for one example. It holds the model's answer, and so may hold the data that are to be forgotten.

    Attributes:
        example: id of the example.
        subject: the person whose data the example holds; None where it is not known.
        prediction: the model's answer.
        accuracy: 1 where the answer holds the fact, or for a stranger where it is a refusal; else 0.
        rouge_l: ROUGE-L F1 with the recorded answer, in [0, 1].
        loss: mean negative log-likelihood of the recorded answer's tokens, in nats.
        refused: whether the answer is a refusal.
    """

    example: str
    subject: str | None
    prediction: str
    accuracy: float
    rouge_l: float
    loss: float
    refused: bool

    @property
    def id(self) -> str:
        """Id of the example, as `subject_key` needs it."""
        return self.example


@dataclass(frozen=True)
class SplitResult:
    """Means over the examples of a split, all in [0, 1].

    Attributes:
        n: number of examples.
        accuracy: share of right answers.
        rouge_l: mean ROUGE-L F1.
        probability: mean probability of the recorded answers: exp(-loss), a geometric mean over tokens.
        refusal_rate: share of refusals.
        accuracy_ci: 95 % bootstrap interval of the accuracy, over subjects.
        items: result of each example.
    """

    n: int
    accuracy: float
    rouge_l: float
    probability: float
    refusal_rate: float
    accuracy_ci: Interval
    items: tuple[ItemResult, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the means for `results.json` (schema `vgid.results/1`), without the items: forgotten data must not leak."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "rouge_l": self.rouge_l,
            "probability": self.probability,
            "refusal_rate": self.refusal_rate,
            "accuracy_ci": list(self.accuracy_ci),
        }


def evaluate(
    model: str | Path | LoadedModel,
    splits: Mapping[str, Rows],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 64,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, SplitResult]:
    """Ask a model every question of every split; score its answers, and how likely it finds the recorded ones.

    A question about the same images is asked once, even if it is in several splits. Recorded answers are scored first: where each token of
    one is the likeliest, it is what the model says, and nothing is generated.

    Args:
        model: folder or hub id, or a loaded model.
        splits: rows by name of their split: files or folders, datasets, dictionaries, or examples.
        max_new_tokens: largest number of tokens in an answer.
        batch_size: number of examples in a batch; batches that do not fit into memory are halved.
        seed: random seed of the bootstrap.
        on_progress: called after each batch with the number of answers generated and scored, and how many there will be.

    Returns:
        The result of each split, by its name.

    Raises:
        DataError: a split is empty, or an example has neither keywords nor an answer with words in it.
        ConfigError: `max_new_tokens` or `batch_size` is not positive.

    Example:
        >>> from vgid import evaluate, load_examples, load_model
        >>> loaded = load_model("path/to/model")  # doctest: +SKIP
        >>> results = evaluate(loaded, {"forget": load_examples("forget.jsonl")})  # doctest: +SKIP
        >>> results["forget"].accuracy, results["forget"].accuracy_ci  # doctest: +SKIP
    """
    rows = {name: _rows(name, source) for name, source in splits.items()}
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    everything = [example for examples in rows.values() for example in examples]
    questions = {_question(example): example for example in everything}
    answers = {(_question(example), example.answer): example for example in everything}
    advance = _counter(len(questions) + len(answers), on_progress)
    scores = dict(zip(answers, score(loaded, list(answers.values()), batch_size, on_batch=advance), strict=True))
    said = {key[0]: each.said for key, each in scores.items() if each.said and len(each.said) <= max_new_tokens}
    advance(len(said))
    predictions = dict(zip(said, texts_of(loaded, [list(each) for each in said.values()]), strict=True))
    others = [question for question in questions if question not in said]
    generated = generate(
        loaded, [questions[each] for each in others], max_new_tokens=max_new_tokens, batch_size=batch_size, on_batch=advance
    )
    predictions |= zip(others, generated, strict=True)

    def item(example: Example) -> ItemResult:
        question = _question(example)
        return _judge(example, predictions[question], scores[question, example.answer])

    return {name: summarise([item(example) for example in examples], seed) for name, examples in rows.items()}


def _rows(name: str, source: Rows) -> list[Example]:
    examples = rows_of(source, name=name)
    if not examples:
        raise DataError(f"the split {name!r} is empty", expected="at least one example", fix="leave the split out")
    return examples


def summarise(items: Sequence[ItemResult], seed: int = 0) -> SplitResult:
    """Average the results of a split; the interval of the accuracy is over subjects (`subject_key`), with a bootstrap drawn by `seed`."""
    accuracies = [item.accuracy for item in items]
    return SplitResult(
        n=len(items),
        accuracy=fmean(accuracies),
        rouge_l=fmean(item.rouge_l for item in items),
        probability=fmean(probability(item.loss) for item in items),
        refusal_rate=fmean(item.refused for item in items),
        accuracy_ci=bootstrap_ci(accuracies, [subject_key(item) for item in items], seed=seed),
        items=tuple(items),
    )


def loss_ks_test(unlearned: SplitResult, retrained: SplitResult) -> KSResult:
    """Compare the losses of an unlearned and a retrained model with a two-sample Kolmogorov-Smirnov test (as TOFU, arXiv 2401.06121).

    Args:
        unlearned: result of the unlearned model on the forget set.
        retrained: result of a model that never saw the forget set, on the same examples.

    Returns:
        Statistic and p-value; a high p-value means that the two models cannot be distinguished by their losses.

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
    return example.images, example.question, example.context


def _judge(example: Example, prediction: str, scored: AnswerScore) -> ItemResult:
    found = in_words(example, prediction)
    return ItemResult(
        example=example.id,
        subject=example.subject,
        prediction=prediction,
        accuracy=found["accuracy"],
        rouge_l=found["rouge_l"],
        loss=scored.loss,
        refused=bool(found["refused"]),
    )


def _counter(total: int, on_progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    return advance
