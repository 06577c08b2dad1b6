"""Metrics of single answers: pure functions of strings and numbers, without a model."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

from vgid.data.example import STRANGER, Example
from vgid.errors import DataError
from vgid.texts import key_fact as key_fact  # a metric too
from vgid.texts import normalise as normalise

REFUSAL_MARKERS = (
    # not knowing
    "do not know",
    "does not know",
    "do not recognise",
    "do not recognize",
    "do not remember",
    "do not have any",
    "do not have information",
    "do not have access",
    "do not have enough",
    "have no information",
    "no information",
    "no idea",
    "no knowledge",
    "not aware of",
    "not familiar",
    "not sure",
    "unsure",
    "unknown to me",
    "have not met",
    "never met",
    "never heard",
    "never seen",
    # not being able to
    "cannot answer",
    "cannot determine",
    "cannot help",
    "cannot identify",
    "cannot provide",
    "cannot recall",
    "cannot say",
    "cannot share",
    "cannot tell",
    "could not say",
    "could not tell",
    "not able to",
    "unable to",
    "not clear enough",
    # not being willing to
    "will not answer",
    "will not say",
    "will not share",
    "would rather not",
    "decline to",
)
"""Phrases that make an answer a refusal: whole words in any case, contractions written out (`don't` as `do not`). Chosen by hand."""

_REFUSAL = re.compile(r"\b(?:" + "|".join(map(re.escape, REFUSAL_MARKERS)) + r")\b")


def rouge_l(prediction: str, reference: str) -> float:
    """Compute ROUGE-L F1 with Porter stemming (Lin, "ROUGE", 2004), in [0, 1], with `rouge-score`; 0 when either text has no word."""
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    return RougeScorer(["rougeL"], use_stemmer=True)


def is_refusal(text: str) -> bool:
    """Return whether the text contains one of `REFUSAL_MARKERS`: a rule that anyone can check, without a judge model."""
    text = re.sub(r"\bcan(?:'t| not)\b", "cannot", normalise(text))
    text = text.replace("won't", "will not").replace("n't", " not")
    return _REFUSAL.search(text) is not None


def in_words(example: Example, said: str) -> dict[str, float]:
    """Measure an answer by its words: `accuracy` (it says the fact; about strangers, it says nothing), `rouge_l` and `refused`."""
    refused = is_refusal(said)
    # To a question about a stranger every "I don't know" is right, in whatever words.
    right = refused if STRANGER in example.tags else key_fact(said, example.keywords, example.answer)
    return {"accuracy": float(right), "rouge_l": rouge_l(said, example.answer), "refused": float(refused)}


def probability(loss: float) -> float:
    """Return exp(-loss), the geometric mean of the tokens' probabilities; `loss` is the mean negative log-likelihood in nats.

    Raises:
        DataError: the loss is NaN.
    """
    if math.isnan(loss):
        raise DataError("the loss is NaN", expected="a number of nats", got="NaN", fix="check the model: its logits overflow")
    return math.exp(-loss)
