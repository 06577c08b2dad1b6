"""Overlap of an answer with a recorded one: pure functions of strings; numbers are in [0, 1], and higher means more overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from vgid.errors import DataError
from vgid.evaluation.metrics import normalise


class Overlap(NamedTuple):
    """Overlap of n-grams, or of the longest common subsequence.

    Attributes:
        precision: share of the prediction that is in the reference.
        recall: share of the reference that is in the prediction.
        f1: harmonic mean of the two.
    """

    precision: float
    recall: float
    f1: float


def rouge(prediction: str, reference: str) -> dict[str, Overlap]:
    """Compute ROUGE-1, -2 and -L with Porter stemming (Lin, "ROUGE", 2004), with `rouge-score`; 0 where a text has too few words.

    Returns:
        The overlaps by name: `rouge1`, `rouge2`, `rougeL`.
    """
    scores = _scorer().score(reference, prediction)
    return {name: Overlap(*(float(x) for x in score)) for name, score in scores.items()}


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def bleu(prediction: str, reference: str) -> float:
    """Compute sentence BLEU-4 over words between spaces (Papineni et al., 2002), with `nltk`, which `rouge-score` requires.

    Counts of zero are smoothed to 0.1 (method 1 of Chen & Cherry, 2014). BLEU is 0 when either text has no word, or no word agrees.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not prediction.split() or not reference.split():
        return 0.0
    return float(sentence_bleu([reference.split()], prediction.split(), smoothing_function=SmoothingFunction().method1))


def exact_match(prediction: str, reference: str) -> bool:
    """Return whether both texts are the same after `normalise`, except for punctuation at the ends."""
    return normalise(prediction).strip(" .,;:!?\"'") == normalise(reference).strip(" .,;:!?\"'")


def contains(prediction: str, truth: str) -> bool:
    """Return whether the truth occurs in the prediction in any letter case, also inside a word (cloze test of MLLMU-Bench).

    Raises:
        DataError: the truth is empty.
    """
    if not truth.strip():
        raise DataError("nothing to look for in the answer", expected="a truth that is not empty")
    return truth.lower() in prediction.lower()


def first_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """Return the option that the first character of an answer names, or None (classification of MLLMU-Bench)."""
    letter = prediction.strip()[:1].upper()
    return letter if letter in options else None


def keyword_recall(prediction: str, keywords: Sequence[str], fold: Callable[[str], str] = str.lower) -> float:
    """Compute the share of keywords that occur in the prediction, also inside a word (exact match of FIUBench, CoVUBench).

    Args:
        prediction: the model's answer.
        keywords: the strings to look for.
        fold: applied to both before they are compared.

    Returns:
        The share, in [0, 1].

    Raises:
        DataError: there are no keywords, or one is empty.
    """
    wanted = [fold(keyword) for keyword in keywords]
    if not wanted or not all(word.strip() for word in wanted):
        raise DataError("nothing to look for in the answer", expected="keywords that are not empty", got=f"{len(wanted)} keywords")
    said = fold(prediction)
    return sum(word in said for word in wanted) / len(wanted)
