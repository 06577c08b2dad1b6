"""What the inspector computes, without a page."""

import math
from dataclasses import replace

import pytest

from tests.attacks.people import WORLD, rows
from tests.conftest import png
from vgid.data.example import Example
from vgid.errors import DataError
from vgid.evaluation.generation import generate
from vgid.evaluation.scoring import score
from vgid.inspector import analysis, markup
from vgid.inspector.page import PageHandlers
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
    said = analysis.ask(base, known)
    assert said.text == generate(base, [known])[0] and said.text
    [scored] = score(base, [replace(known, answer=said.text)])
    assert len(said.tokens) == scored.tokens  # the end of the turn is one
    assert -sum(math.log(token.chosen.probability) for token in said.tokens) / len(said.tokens) == pytest.approx(scored.loss, rel=1e-4)
    for token in said.tokens:
        assert token.likeliest[0] == token.chosen and len(token.likeliest) == analysis.ALTERNATIVES
        assert [each.probability for each in token.likeliest] == sorted((each.probability for each in token.likeliest), reverse=True)


@pytest.mark.parametrize("words", [1, 2])
def test_an_answer_continues_as_it_would_have(words: int, base: LoadedModel, known: Example) -> None:
    whole = analysis.ask(base, known)
    start = " ".join(whole.text.split()[:words])
    rest = analysis.ask(base, known, f" {start} ")
    assert f"{start} {rest.text}".replace(" .", ".") == whole.text
    tail = whole.tokens[len(whole.tokens) - len(rest.tokens) :]
    assert [token.chosen.text for token in rest.tokens] == [token.chosen.text for token in tail]
    assert [token.chosen.probability for token in rest.tokens] == pytest.approx([token.chosen.probability for token in tail], rel=1e-3)


def test_the_teacher_by_parts(base: LoadedModel, known: Example) -> None:
    found = analysis.ask_teacher(base, known, NoiseConfig(), INSTRUCTIONS["forget"])
    assert list(found.answers) == ["as it is", "noise", "instruction", "both"] and found.answers["as it is"] == analysis.ask(base, known)
    assert found.answers["noise"] != found.answers["as it is"]
    still = analysis.ask_teacher(base, known, NoiseConfig(kind="none"), INSTRUCTIONS["forget"])
    assert still.answers["both"] == still.answers["instruction"] and still.answers["noise"] == still.answers["as it is"]
    assert found.picture is not None and still.picture is not None and found.picture.size == (96, 96)
    seen, true = (list(picture.convert("L").resize((8, 8)).tobytes()) for picture in (still.picture, known.images[0].open()))
    assert max(abs(a - b) for a, b in zip(seen, true, strict=True)) < 16  # what the model sees is the picture, but for resizing
    assert analysis.ask_teacher(base, replace(known, images=()), NoiseConfig(), "x").picture is None


def test_attack_prompts(known: Example) -> None:
    found = list(analysis.attack_prompts(known))
    assert found[0].example == known and len({(prompt.attack, prompt.variant) for prompt in found}) == len(found)
    kinds = {"plain", "other words", "jailbreak", "changed picture", "words in the picture"}
    assert {prompt.attack for prompt in found} == kinds
    assert {prompt.attack for prompt in analysis.attack_prompts(replace(known, images=()))} == kinds - {"changed picture"}
    assert all(known.keywords[0].lower() not in prompt.example.question.lower() for prompt in found)


def test_attacks_are_judged_where_there_is_an_answer(base: LoadedModel, known: Example) -> None:
    outcomes = analysis.run_attacks({"Before": base, "After": base}, known)
    assert outcomes[0].recovered == {"Before": True, "After": True} and known.keywords[0] in outcomes[0].answers["Before"]
    assert "(gives the fact)" in markup.attack_table(outcomes)
    free = analysis.run_attacks({"Before": base}, analysis.make_example(known.question, known.images[0].read()))
    assert free[0].recovered is None and free[0].answers["Before"] == outcomes[0].answers["Before"]
    assert "no recorded answer" in markup.attack_table(free)


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
        analysis.make_example(question, picture)


def test_the_page_turns_errors_into_text(base: LoadedModel, known: Example) -> None:
    handlers = PageHandlers(base, base, [known])
    assert "there is no question" in handlers.ask(None, None, "", "") and 'role="alert"' in handlers.ask(None, None, "", "")
    assert "there is no instruction" in handlers.ask_teacher(None, None, "Who?", "uniform", 1.0, "pixel", " ")
    assert "context" in handlers.ask(None, None, "who " * 480, "")
    picture, question = handlers.fill(known.id)
    assert question == known.question and picture.size == known.images[0].open().size and handlers.fill(None) == (None, "")
    assert "Prompts that recover" in handlers.attack(known.id, None, known.question)  # the row's answer is on record
    assert "no recorded answer" in handlers.attack(known.id, None, f"{known.question} Please.")  # it is not this question's


def test_everything_shown_is_escaped(base: LoadedModel) -> None:
    choice = analysis.TokenChoice(EVIL, 0.5)
    said = analysis.Answer(EVIL, (analysis.AnswerToken(choice, (choice,)),))
    prompt = analysis.AttackPrompt(EVIL, EVIL, Example("x", EVIL, ""))
    shown = [
        markup.answer_columns({EVIL: said}, EVIL),
        markup.teacher_columns(analysis.TeacherAnswers({EVIL: said}, None)),
        markup.attack_table([analysis.AttackOutcome(prompt, {EVIL: EVIL}, {EVIL: True})]),
        markup.problem(DataError(EVIL)),
    ]
    assert all("<script" not in text and "<img" not in text and "&lt;script&gt;" in text for text in shown)
