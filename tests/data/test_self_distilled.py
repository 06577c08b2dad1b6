"""Self-distilled rows by hand: which questions are asked about forget pictures, and which answers are left out."""

from collections.abc import Sequence
from random import Random

from tests.conftest import png
from vgid.data.example import STRANGER, Example, ImageRef
from vgid.data.self_distilled import Questions, answered_together, dissimilar_questions, self_distilled_rows

PICTURES = [ImageRef(data=png(seed)) for seed in range(3)]


def row(id: str, question: str, picture: int | None, **more: object) -> Example:
    images = () if picture is None else (PICTURES[picture],)
    return Example(id, question, "An answer.", images, **more)  # type: ignore[arg-type]


FORGET = [
    row("f1", "Where does this person live?", 0, subject="p", keywords=("New Delhi",)),
    row("f2", "What is this person's job?", 0, subject="p", keywords=("judge",)),
    row("f3", "Who is this?", 1, subject="q", keywords=("Mona",)),
    row("f4", "Where does Mona live?", None, subject="q", keywords=("Oslo",)),
]
RETAIN = [
    row("r1", "Where does that person live?", 2),  # 4 of 6 words are those of f1
    row("r2", "What colour is the background?", 2),
    row("r3", "Is there a hat?", 2),
    row("r4", "Which pet is it?", 2, tags=(STRANGER,)),
    row("r5", "Name a river in France.", None),
]


def test_questions_that_are_like_forget_questions_or_need_no_picture_or_have_no_answer_are_not_asked() -> None:
    assert sorted(dissimilar_questions(FORGET, RETAIN, Random(0))) == ["Is there a hat?", "What colour is the background?"]


def test_answers_that_say_what_is_to_be_forgotten_are_left_out() -> None:
    asked: list[Example] = []

    def answer(rows: Sequence[Example]) -> list[str]:
        asked.extend(rows)
        said = {"What colour is the background?": "Red.", "Is there a hat?": "A judge in NEW  Delhi."}
        return ["" if row.subject == "q" and "a hat" in row.question else said[row.question] for row in rows]

    (found,) = answered_together([self_distilled_rows(FORGET, RETAIN, 5, 0)], answer)
    # Two pictures, two questions that qualify; the answer with a secret and the empty one are dropped.
    assert len(asked) == 4 and not any(row.answer for row in asked)
    assert sorted((row.question, row.answer, row.subject, row.images[0] == PICTURES[0]) for row in found) == [
        ("What colour is the background?", "Red.", "p", True),
        ("What colour is the background?", "Red.", "q", False),
    ]
    assert len({row.id for row in found}) == 2 and all(row.tags == ("anchor",) for row in found)


def test_the_choice_follows_from_the_seed() -> None:
    def questions(seed: int) -> list[str]:
        return [row.question for row in self_distilled_rows(FORGET, RETAIN, 1, seed).rows]

    assert questions(0) == questions(0) and len({tuple(questions(seed)) for seed in range(9)}) > 1


def test_without_pictures_or_questions_there_are_no_rows() -> None:
    def never(rows: Sequence[Example]) -> list[str]:
        raise AssertionError("nothing to ask")

    asked = [self_distilled_rows([FORGET[3]], RETAIN, 2, 0), self_distilled_rows(FORGET, [RETAIN[4]], 2, 0)]
    assert answered_together(asked, never) == [[], []]


def test_several_kinds_are_asked_together_and_told_apart() -> None:
    calls: list[list[str]] = []

    def answer(rows: Sequence[Example]) -> list[str]:
        calls.append([row.id for row in rows])
        return [f"to {row.id}" for row in rows]

    kinds = [RETAIN[:2], [], RETAIN[2:]]
    asked = [Questions(rows, lambda said, rows=rows: [f"{row.id} {text}" for row, text in zip(rows, said, strict=True)]) for rows in kinds]  # type: ignore[misc]
    assert answered_together(asked, answer) == [[f"{row.id} to {row.id}" for row in rows] for rows in kinds]
    assert calls == [[row.id for row in RETAIN]]
