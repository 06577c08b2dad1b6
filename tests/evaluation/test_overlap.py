"""Overlap of answers, against values worked out by hand and against the formula written out plainly."""

import math
from collections import Counter

import pytest

from vgid.errors import DataError
from vgid.evaluation.metrics import rouge_l
from vgid.evaluation.overlap import bleu, contains, exact_match, first_letter, keyword_recall, rouge


def test_rouge_by_hand() -> None:
    # "she lives in lima" against "she lives in oslo now": 3 of 4 and of 5 words, 2 of 3 and of 4 pairs, "she lives in" in order.
    scores = rouge("She lives in Lima.", "She lives in Oslo now.")
    assert scores["rouge1"] == pytest.approx((3 / 4, 3 / 5, 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)))
    assert scores["rouge2"][:2] == pytest.approx((2 / 3, 2 / 4))
    assert scores["rougeL"] == pytest.approx(scores["rouge1"])
    assert scores["rougeL"].f1 == rouge_l("She lives in Lima.", "She lives in Oslo now.")
    # One word has no pairs; order counts for L only.
    assert rouge("Oslo", "Oslo")["rouge2"].f1 == 0.0 and rouge("Oslo", "Oslo")["rouge1"].f1 == 1.0
    assert rouge("c b a", "a b c")["rouge1"].f1 == 1.0 and rouge("c b a", "a b c")["rougeL"].f1 == pytest.approx(1 / 3)
    for prediction, reference in (("", "Oslo"), ("Oslo", ""), ("", "")):
        assert all(score == (0.0, 0.0, 0.0) for score in rouge(prediction, reference).values())


def plain_bleu(prediction: str, reference: str) -> float:
    """The formula: brevity penalty times the geometric mean of clipped precisions, zeros replaced by 0.1."""
    said, truth = prediction.split(), reference.split()
    logs = []
    for n in range(1, 5):
        grams, known = (Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (said, truth))
        hits = sum(min(count, known[gram]) for gram, count in grams.items())
        if n == 1 and hits == 0:
            return 0.0
        logs.append(math.log((hits or 0.1) / max(1, sum(grams.values()))))
    penalty = 1.0 if len(said) > len(truth) else math.exp(1 - len(truth) / len(said))
    return penalty * math.exp(sum(logs) / 4)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("the cat sat on the mat", "the cat sat on the mat"),
        ("the cat sat on a mat", "the cat sat on the mat"),
        ("the the the the the the", "the cat sat on the mat"),
        ("cat", "the cat"),
        ("a cat is on the mat today or so", "the cat sat on the mat"),
        ("nothing", "at all"),
    ],
)
def test_bleu_is_the_formula(prediction: str, reference: str) -> None:
    assert bleu(prediction, reference) == pytest.approx(plain_bleu(prediction, reference))


def test_bleu_by_hand_and_empty() -> None:
    # Precisions 3/4, 2/3, 1/2 and 0 -> 0.1/1, no penalty as lengths agree.
    assert bleu("a b c x", "a b c d") == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** 0.25)
    assert bleu("", "a b") == bleu("a b", "") == bleu("", "") == 0.0


def test_exact_match_and_substrings() -> None:
    assert exact_match(" oslo. ", "Oslo") and not exact_match("Oslo, Norway", "Oslo")
    assert contains("She lives in OSLO!", "Oslo") and contains("Osloers", "Oslo") and not contains("", "Oslo")
    with pytest.raises(DataError, match="nothing to look for"):
        contains("Oslo", " ")


def test_first_letter_names_an_option_or_none() -> None:
    options = {"A": "Rome", "B": "Oslo"}
    assert [first_letter(said, options) for said in ("b", " A: Rome", "C", "", "Oslo")] == ["B", "A", None, None, None]


def test_keyword_recall_is_the_share_found() -> None:
    assert keyword_recall("A baker from OSLO", ["baker", "Oslo", "1970"]) == pytest.approx(2 / 3)
    assert keyword_recall("", ["baker"]) == 0.0 and keyword_recall("bakery", ["baker"]) == 1.0
    assert keyword_recall("Straße", ["STRASSE"], fold=str.casefold) == 1.0 and keyword_recall("Straße", ["STRASSE"]) == 0.0
    for keywords in ([], ["baker", " "]):
        with pytest.raises(DataError, match="nothing to look for"):
            keyword_recall("baker", keywords)
