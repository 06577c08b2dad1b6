"""How much an answer has in common with a recorded one: pure functions over strings, all in [0, 1], all higher-is-more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from vgid.errors import DataError
from vgid.evaluation.metrics import normalise


class Overlap(NamedTuple):
    """Share of the prediction's n-grams that are in the reference, the other way round, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def rouge(prediction: str, reference: str) -> dict[str, Overlap]:
    """ROUGE-1, -2 and -L with Porter stemming (Lin, 2004), by `rouge-score`; 0 where either text has too few words."""
    scores = _scorer().score(reference, prediction)
    return {name: Overlap(*(float(x) for x in score)) for name, score in scores.items()}


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def bleu(prediction: str, reference: str) -> float:
    """Sentence BLEU-4 over words between spaces (Papineni et al., 2002), by `nltk`, which `rouge-score` brings along.

    Counts of zero are smoothed to 0.1 (method 1 of Chen & Cherry, 2014). 0 when either text has no word, and when no word agrees.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not prediction.split() or not reference.split():
        return 0.0
    return float(sentence_bleu([reference.split()], prediction.split(), smoothing_function=SmoothingFunction().method1))


def exact_match(prediction: str, reference: str) -> bool:
    """Whether both say the same after `normalise`, punctuation at the ends aside."""
    return normalise(prediction).strip(" .,;:!?\"'") == normalise(reference).strip(" .,;:!?\"'")


def contains(prediction: str, truth: str) -> bool:
    """Whether the truth stands in the prediction in any case, also inside a word (MLLMU-Bench's cloze).

    Raises:
        DataError: there is no truth to look for.
    """
    if not truth.strip():
        raise DataError("nothing to look for in the answer", expected="a truth that is not empty")
    return truth.lower() in prediction.lower()


def first_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """The option that the first character of an answer names; None where it names none (MLLMU-Bench's classification)."""
    letter = prediction.strip()[:1].upper()
    return letter if letter in options else None


def keyword_recall(prediction: str, keywords: Sequence[str], fold: Callable[[str], str] = str.lower) -> float:
    """Share of keywords that stand in the prediction, compared after `fold`, also inside a word (FIUBench's exact match, CoVUBench).

    Raises:
        DataError: there are no keywords, or one is empty.
    """
    wanted = [fold(keyword) for keyword in keywords]
    if not wanted or not all(word.strip() for word in wanted):
        raise DataError("nothing to look for in the answer", expected="keywords that are not empty", got=f"{len(wanted)} keywords")
    said = fold(prediction)
    return sum(word in said for word in wanted) / len(wanted)
