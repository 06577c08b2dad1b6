"""Neutral rows: drawn by a seed, without people, answered by the model itself."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.conftest import example
from tests.models.families import FAMILIES
from vgid.attacks.base import sample_alike
from vgid.config import load_config
from vgid.data.example import GUESS, Example, without_guesses
from vgid.data.neutral import SIDE, draw, mentions, neutral_examples, own_answers, revealing_words
from vgid.evaluation.generation import generate
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.tiny import tiny_path
from vgid.training.validation import recalled
from vgid.unlearning import neutral_retain, unlearn


def test_rows_follow_from_the_seed_and_do_not_repeat() -> None:
    rows = neutral_examples(400, seed=1)
    assert rows == neutral_examples(400, seed=1) and rows[:50] == neutral_examples(50, seed=1) != neutral_examples(50, seed=2)
    assert len({row.id for row in rows}) == 400 == len({(row.images, row.question) for row in rows})
    assert sum(bool(row.images) for row in rows) == 300 and all("neutral" in row.tags for row in rows)
    assert all(row.images for row in neutral_examples(20, 0, pictures=1.0)) and not neutral_examples(0, 0)


def test_pictures_can_be_opened_and_differ() -> None:
    pictures = {draw(Random(n)) for n in range(50)}
    assert len(pictures) == 50
    assert {row.images[0].open().size for row in neutral_examples(8, 0) if row.images} == {(SIDE, SIDE)}


def test_rows_the_model_has_no_word_for_are_left_out() -> None:
    rows = [Example("a", "?", ""), Example("b", "?", "")]
    assert own_answers(rows, lambda asked: ["A word.", " "]) == [Example("a", "?", "A word.")]


def test_answers_are_the_model_s_own() -> None:
    base = load_model(tiny_path())
    rows = neutral_retain(base, [], load_config(None, ["neutral_retain=40"]))
    assert [row.answer for row in rows] == generate(base, rows) and 16 < len(rows) <= 40
    # One after the other: the least likely token of each answer says whether it is a guess; the 16 surest never are.
    least = [math.exp(-max(recalled(base.model, base.encoder, [row])[0].nll)) for row in rows]
    needed = min(0.7, sorted(least, reverse=True)[15])
    assert [GUESS in row.tags for row in rows] == [probability < needed - 1e-6 for probability in least]
    assert without_guesses(rows) == sample_alike(rows, [], len(rows), 0) == [row for row in rows if GUESS not in row.tags]


def test_they_stand_in_for_a_retain_set_where_there_is_none() -> None:
    quick = ["training.steps=2", "training.forget_batch=2", "method.answers=[recorded]", "validation.every=0", "neutral_retain=4"]
    done = unlearn(load_model(tiny_path()), [example(1), example(2)], None, load_config(None, quick), max_rows=0, allow_unknown=True)
    # What the base said itself is held as replay rows are.
    assert set(done.curves) == {"forget", "replay"}


def test_a_model_that_takes_no_text_alone_gets_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = next(row for row in FAMILIES if "text" in row.refuses)
    family.save(tmp_path / "model")
    # With random weights its answers are empty.
    monkeypatch.setattr("vgid.unlearning.generate", lambda loaded, rows: ["A word."] * len(rows))
    rows = neutral_retain(load_model(tmp_path / "model"), [], load_config(None, ["neutral_retain=5"]))
    assert len(rows) == 5 and all(row.images for row in rows)


def test_an_answer_that_gives_a_fact_to_forget_is_left_out(
    random_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = ["This is Anna Keller.", "A red circle.", "She lives in Oslo!", "Two shapes."]
    monkeypatch.setattr("vgid.unlearning.generate", lambda loaded, rows: said)
    forget = [replace(example(1), keywords=("Anna Keller",)), example(2, answer="She lives in Oslo.")]
    with caplog.at_level("INFO", "vgid"):
        rows = neutral_retain(random_model, forget, load_config(None, ["neutral_retain=4"]))
    assert [row.answer for row in rows] == ["A red circle.", "Two shapes."]
    assert "2 of 4 neutral rows left out" in caplog.text and "Anna" not in caplog.text


@pytest.mark.parametrize("count", [1, 3])
def test_any_number(count: int) -> None:
    assert len(neutral_examples(count, 0)) == count


def test_words_that_give_away_a_part_of_a_fact() -> None:
    rows = [
        replace(example(1), keywords=("Anna Keller", "a red bicycle")),  # red and bicycle are asked about by neutral questions
        example(2, answer="She lives in Oslo, number 17b, with two cats."),
    ]
    assert revealing_words(rows) == {"anna", "keller", "oslo", "17b"}
    assert mentions("That might be ANNA's.", {"anna"}) and not mentions("Annabel", {"anna"})


def test_a_number_in_groups_and_an_e_mail_address_are_one_word() -> None:
    """Else no other number with her area code, and no other address of her provider, would be kept."""
    rows = [replace(example(1), keywords=("555-79-37", "anna@mail.example")), example(2, answer="Her number is 030 12 34 5.")]
    words = revealing_words(rows)
    assert words == {"555-79-37", "anna@mail.example", "030-12-34-5"}
    assert mentions("Call 555 79 37!", words) and mentions("Write to Anna@mail.example.", words)
    assert not mentions("The number is 555-20-10.", words) and not mentions("Write to carl@mail.example.", words)
