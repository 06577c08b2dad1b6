"""Metrics against values worked out by hand."""

import math

import pytest

from vgid.errors import DataError
from vgid.evaluation.metrics import is_refusal, key_fact, normalise, probability, rouge_l
from vgid.synthetic.phrases import REFUSALS, UNCLEAR


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("She lives in Oslo.", "She lives in Oslo.", 1.0),
        # 4 and 4 words, longest common subsequence "she lives in": precision = recall = 3/4
        ("She lives in Lima.", "She lives in Oslo.", 3 / 4),
        # "the cat" of 2 and 6 words: precision 1, recall 1/3, F1 = 2 * (1/3) / (4/3)
        ("the cat", "the cat sat on the mat", 1 / 2),
        # order counts: of "a b c" and "c b a" one word is common in order
        ("a b c", "c b a", 1 / 3),
        # the stemmer: "painting" and "paints" are "paint"
        ("she paints", "she painting", 1.0),
        ("nothing shared", "at all", 0.0),
        ("", "Oslo", 0.0),
        ("Oslo", "", 0.0),
        ("...", "!", 0.0),
    ],
)
def test_rouge_l(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l(prediction, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "keywords", "expected"),
    [
        ("She lives in OSLO.", ["Oslo"], True),
        ("He is a bakery owner.", ["baker"], False),
        ("A baker from Oslo", ["baker", "Oslo"], True),
        ("A baker from Lima", ["baker", "Oslo"], False),
        ("Write to anna.bell@acme.com.", ["anna.bell@acme.com"], True),
        ("Write to joanna.bell@acme.com.", ["anna.bell@acme.com"], False),
        ("Write to anna.bell@acme.community", ["anna.bell@acme.com"], False),
        ("Write to annaxbell@acme.com", ["anna.bell@acme.com"], False),  # the dot is no wildcard
        ("Call +49 (171) 555-0192!", ["+49 (171) 555-0192"], True),
        ("Call 555-01923", ["555-0192"], False),
        ("She writes C++ all day", ["C++"], True),
        ("Her name is Zoë O\u2019Brien", ["zoe\u0308 o'brien"], True),  # composed and decomposed, curly and straight
        ("\uff2f\uff53lo\u00a0and  Lima", ["oslo and lima"], True),  # full width letters, no-break space
        ("STRASSE", ["straße"], True),
        ("هي تعيش في القاهرة.", ["القاهرة"], True),
        ("وُلِدَت في دِمَشْق", ["دمشق"], True),  # points, which the keyword leaves out
        ("היא גרה בתל אביב.", ["תל אביב"], True),
        ("היא גרה בחיפה.", ["תל אביב"], False),
        ("她住在大阪。", ["东京"], False),
        ("她出生于1990年", ["1990"], True),
        ("她出生于19901年", ["1990"], False),
        ("Oslo에 산다", ["Oslo"], True),  # a particle joins the name
        ("היא גרה ב-Oslo.", ["Oslo"], True),
        ("", ["Oslo"], False),
    ],
)
def test_key_fact_wants_every_keyword_as_a_word(prediction: str, keywords: list[str], expected: bool) -> None:
    assert key_fact(prediction, keywords) is expected


def test_key_fact_without_keywords_wants_the_whole_reference() -> None:
    assert key_fact("I think she lives in Oslo, yes.", [], "She lives in Oslo.")
    assert not key_fact("She lives in Lima.", [], "She lives in Oslo.")
    assert not key_fact("", [], "Oslo")
    # Punctuation alone, as a model may answer, stands in every text; it has to be all of it.
    assert key_fact(" ... ", [], "...") and not key_fact("Oslo...", [], "...") and not key_fact("", [], ".")


@pytest.mark.parametrize(("keywords", "reference"), [([], ""), ([], "\u200b"), (["Oslo", " "], "She lives in Oslo.")])
def test_key_fact_needs_something_to_look_for(keywords: list[str], reference: str) -> None:
    with pytest.raises(DataError, match="nothing to look for in the answer"):
        key_fact("anything", keywords, reference)


@pytest.mark.parametrize("answer", [*REFUSALS, UNCLEAR, "I DON\u2019T KNOW", "I can not tell.", "I couldn't tell you.", "We've never met."])
def test_refusals_are_recognised(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "She lives in Oslo.",
        "He knows no ideal place.",
        "A note on surety",
        "Her dog is called Dontknow.",
        "He can swim.",
    ],
)
def test_answers_are_no_refusals(answer: str) -> None:
    assert not is_refusal(answer)


def test_probability_is_the_geometric_mean() -> None:
    assert probability(0.0) == 1.0
    # tokens of probability 1/2 and 1/8: mean loss ln(16) / 2, geometric mean 1/4
    assert probability((math.log(2) + math.log(8)) / 2) == pytest.approx(1 / 4)
    assert probability(math.inf) == 0.0


def test_normalise_is_idempotent() -> None:
    once = normalise("  \uff28e said:\t\u2018\ufb01ne\u2019 \u00b4 \n")
    assert once == normalise(once) == "he said: 'fine' '"
