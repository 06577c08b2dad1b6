"""Probes: a base that is a table, and what a run asks that trains on none of it."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from tests.data.test_replay import ASKED, FORGET, PICTURE
from vgid.data.example import Example, ImageRef
from vgid.data.probes import pictures_aside, probe_rows
from vgid.data.self_distilled import answered_together

QUESTIONS = [
    replace(FORGET[0], id=f"f{n}", question=f"Where does this person live on day {n}?", answer="Anna Keller lives in Oslo.")
    for n in range(3)
]
BASE = replace(
    ASKED,
    answer=lambda rows: [f"This is {row.keywords[0]}." if row.keywords else "In Rome." for row in rows],
    imagine=lambda groups, seed: [rows[0].images[0] for rows in groups],
)
"""It says the name of whom it imagined, says Mona Urban and her who is forgotten where it is asked for somebody, and knows one fact."""


def asked(pictures: Sequence[ImageRef] = (), trained: Sequence[Example] = (), part: float = 1.0) -> list[tuple[str, str, bool]]:
    rows = answered_together([probe_rows(QUESTIONS, pictures, trained, 0, BASE, part)], BASE.answer)[0]
    assert len({row.id for row in rows}) == len(rows) and all(row.answer == "In Rome." for row in rows)
    return [(row.tags[1], row.question, bool(row.images)) for row in rows]


def test_probes_ask_by_name_about_imagined_pictures_and_those_that_were_put_aside() -> None:
    found = asked([ImageRef.from_picture(Image.new("RGB", (8, 8)))])
    by_name = [question for kind, question, picture in found if kind == "names" and not picture]
    assert len(set(by_name)) == len(by_name) == 2 and all("Mona Urban" in question for question in by_name)
    assert sorted(each for each in found if each[2]) == [
        (kind, row.question, True) for kind in ("crossed", "imagined") for row in QUESTIONS
    ]


def test_no_question_by_name_is_asked_that_is_trained_on() -> None:
    """Of three questions about Mona two are trained on; two about Anna, who is forgotten, are never asked."""
    trained = [Example(f"t{n}", f"Where does Mona Urban live on day {n}?", "In Rome.") for n in range(2)]
    assert [question for kind, question, _ in asked(trained=trained) if kind == "names"] == ["Where does Mona Urban live on day 2?"]


def test_a_short_run_asks_less() -> None:
    assert asked(part=0.001) == [] and {kind for kind, *_ in asked(part=0.02)} == {"names"}


def test_an_answer_with_a_part_of_a_fact_is_no_probe() -> None:
    base = replace(BASE, answer=lambda rows: ["In Oslo."] * len(rows))
    assert answered_together([probe_rows(QUESTIONS, [], [], 0, base)], base.answer)[0] == []


def test_one_in_eight_pictures_of_the_retain_set_is_put_aside() -> None:
    """Of 17 pictures, of which one is that of the forget set, two; of 100 eight."""
    retain = [Example(f"r{n}", "?", "!", (ImageRef.from_picture(Image.new("RGB", (8, 8), (n, 0, 0))),)) for n in range(100)]
    found = pictures_aside(FORGET, [replace(retain[0], images=(PICTURE,)), *retain[:16], *retain[:16]], seed=1)
    assert len(set(found)) == len(found) == 2 and PICTURE not in found
    assert len(pictures_aside(FORGET, retain, seed=1)) == 8 and pictures_aside(FORGET, retain[:7], seed=1) == []
    assert pictures_aside(FORGET, retain, seed=2) != pictures_aside(FORGET, retain, seed=1)
