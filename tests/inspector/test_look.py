"""What the inspector finds, without any page."""

import math
from dataclasses import replace

import pytest

from tests.attacks.people import WORLD, rows
from tests.conftest import png
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import score
from vgid.inspector import look, markup
from vgid.inspector.page import Desk
from vgid.instructions import INSTRUCTIONS
from vgid.models.loading import LoadedModel, load_model
from vgid.perturbation import NoiseConfig
from vgid.synthetic.tiny import tiny_path

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model(tiny_path())


@pytest.fixture(scope="module")
def known() -> Example:
    """A question about somebody whom the model knows, with a picture."""
    return rows(WORLD.base_training_people[:1])[0]


def test_probabilities_are_those_of_scoring(base: LoadedModel, known: Example) -> None:
    said = look.ask(base, known)
    assert said.text == generate(base, [known])[0] and said.text
    [scored] = score(base, [replace(known, answer=said.text)])
    assert len(said.steps) == scored.tokens  # the end of the turn is one
    assert -sum(math.log(step.chosen.probability) for step in said.steps) / len(said.steps) == pytest.approx(scored.loss, rel=1e-4)
    for step in said.steps:
        assert step.likeliest[0] == step.chosen and len(step.likeliest) == look.ALTERNATIVES
        assert [each.probability for each in step.likeliest] == sorted((each.probability for each in step.likeliest), reverse=True)


@pytest.mark.parametrize("words", [1, 2])
def test_an_answer_goes_on_as_it_would_have(words: int, base: LoadedModel, known: Example) -> None:
    whole = look.ask(base, known)
    start = " ".join(whole.text.split()[:words])
    rest = look.ask(base, known, f" {start} ")
    assert f"{start} {rest.text}".replace(" .", ".") == whole.text
    tail = whole.steps[len(whole.steps) - len(rest.steps) :]
    assert [step.chosen.text for step in rest.steps] == [step.chosen.text for step in tail]
    assert [step.chosen.probability for step in rest.steps] == pytest.approx([step.chosen.probability for step in tail], rel=1e-3)


def test_the_teacher_by_parts(base: LoadedModel, known: Example) -> None:
    lesson = look.teach(base, known, NoiseConfig(), INSTRUCTIONS["forget"])
    assert list(lesson.said) == ["as it is", "noise", "instruction", "both"] and lesson.said["as it is"] == look.ask(base, known)
    assert lesson.said["noise"] != lesson.said["as it is"]
    still = look.teach(base, known, NoiseConfig(kind="none"), INSTRUCTIONS["forget"])
    assert still.said["both"] == still.said["instruction"] and still.said["noise"] == still.said["as it is"]
    assert lesson.picture is not None and still.picture is not None and lesson.picture.size == (96, 96)
    seen, true = (list(picture.convert("L").resize((8, 8)).tobytes()) for picture in (still.picture, known.images[0].open()))
    assert max(abs(a - b) for a, b in zip(seen, true, strict=True)) < 16  # what the model sees is the picture, but for resizing
    assert look.teach(base, replace(known, images=()), NoiseConfig(), "x").picture is None


def test_ways_of_asking(known: Example) -> None:
    found = list(look.ways(known))
    assert found[0].example == known and len({(way.attack, way.name) for way in found}) == len(found)
    kinds = {"plain", "other words", "talked into it", "other picture", "words in the picture"}
    assert {way.attack for way in found} == kinds
    assert {way.attack for way in look.ways(replace(known, images=()))} == kinds - {"other picture"}
    assert all(known.keywords[0].lower() not in way.example.question.lower() for way in found)


def test_attacks_are_judged_where_there_is_an_answer(base: LoadedModel, known: Example) -> None:
    tried = look.attack({"Before": base, "After": base}, known)
    assert tried[0].told == {"Before": True, "After": True} and known.keywords[0] in tried[0].answers["Before"]
    assert "(tells it)" in markup.attacks(tried)
    free = look.attack({"Before": base}, look.example_of(known.question, known.images[0].read()))
    assert free[0].told is None and free[0].answers["Before"] == tried[0].answers["Before"]
    assert "nothing is judged" in markup.attacks(free)


@pytest.mark.parametrize(
    ("question", "picture", "message"),
    [
        ("  ", None, "there is no question"),
        ("x" * 2001, None, "the question is too long"),
        ("Who?", b"no picture", "image of unknown format"),
        ("Who?", png()[:200], "truncated or damaged"),
    ],
)
def test_bad_input(question: str, picture: bytes | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        look.example_of(question, picture)


def test_the_desk_turns_errors_into_text(base: LoadedModel, known: Example) -> None:
    desk = Desk(base, base, [known])
    assert "there is no question" in desk.ask(None, None, "", "") and 'role="alert"' in desk.ask(None, None, "", "")
    assert "there is no instruction" in desk.teach(None, None, "Who?", "uniform", 1.0, "pixel", " ")
    assert "context" in desk.ask(None, None, "who " * 480, "")
    picture, question = desk.fill(known.id)
    assert question == known.question and picture.size == known.images[0].open().size and desk.fill(None) == (None, "")
    assert "Ways, of" in desk.attack(known.id, None, known.question)  # the row's answer is on record
    assert "nothing is judged" in desk.attack(known.id, None, f"{known.question} Please.")  # it is not this question's


def test_everything_shown_is_escaped(base: LoadedModel) -> None:
    choice = look.Choice(EVIL, 0.5)
    said = look.Said(EVIL, (look.Step(choice, (choice,)),))
    way = look.Way(EVIL, EVIL, Example("x", EVIL, ""))
    shown = [
        markup.answers({EVIL: said}, EVIL),
        markup.lesson(look.Lesson({EVIL: said}, None)),
        markup.attacks([look.Tried(way, {EVIL: EVIL}, {EVIL: True})]),
        markup.problem(DataError(EVIL)),
    ]
    assert all("<script" not in text and "<img" not in text and "&lt;script&gt;" in text for text in shown)
