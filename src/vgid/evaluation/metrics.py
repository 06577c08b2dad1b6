"""What an answer is worth: pure functions over strings and numbers, all higher-is-more, none needs a model."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from vgid.errors import DataError

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
"""What makes an answer a refusal: whole words in any case, contractions written out (`don't` as `do not`)."""

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
_REFUSAL = re.compile(r"\b(?:" + "|".join(map(re.escape, REFUSAL_MARKERS)) + r")\b")
_EDGES = " .,;:!?\"'()[]"


def normalise(text: str) -> str:
    """Unicode NFKC, casefolded, straight apostrophes, single spaces: the form in which texts are compared."""
    # Apostrophes first: NFKC would turn the acute accent into a space and a combining mark.
    folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F1 in [0, 1] with Porter stemming (Lin, 2004), by `rouge-score`; 0 when either text has no word."""
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    return RougeScorer(["rougeL"], use_stemmer=True)


def key_fact(prediction: str, keywords: Sequence[str], reference: str = "") -> bool:
    """Whether the prediction says the fact: every keyword occurs in it, compared after `normalise`, on word boundaries.

    A boundary is "no letter or digit next to it", so that keywords may start and end with punctuation (`+49 171`,
    `C++`). Scripts that write no spaces have no such boundaries: give their keywords as they stand between punctuation.
    Without keywords the whole reference must occur, except for punctuation at its ends.

    Raises:
        DataError: nothing to look for, because a keyword, or the reference that stands in for keywords, is empty.
    """
    wanted = [normalise(keyword) for keyword in keywords] or [normalise(reference).strip(_EDGES)]
    if not all(wanted):
        raise DataError(
            "nothing to look for in the answer",
            expected="keywords that are not empty, or a reference answer with words in it",
            got="an empty keyword" if keywords else "a reference without words",
        )
    text = normalise(prediction)
    return all(re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text) for each in wanted)


def is_refusal(text: str) -> bool:
    """Whether the text contains one of `REFUSAL_MARKERS`: a rule of thumb that anyone can check, and no judge model."""
    text = re.sub(r"\bcan(?:'t| not)\b", "cannot", normalise(text))
    text = text.replace("won't", "will not").replace("n't", " not")
    return _REFUSAL.search(text) is not None


def probability(loss: float) -> float:
    """Geometric mean probability of an answer token, exp(-loss); `loss` is the mean negative log-likelihood in nats.

    Raises:
        DataError: the loss is no number.
    """
    if math.isnan(loss):
        raise DataError("a loss is no number", expected="a number of nats", got="NaN", fix="check the model: its logits overflow")
    return math.exp(-loss)
