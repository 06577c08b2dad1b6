"""Names are distinguished from other words by the subjects that are asked about, and replaced by invented ones."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgid.data.example import Example, ImageRef
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.methods.vgid.names import Names, mask_names, names_in

WORDINGS = ("Where does {} live?", "Could you tell me where {} lives?", "{} works as what?", "Name the pet of {}.")
PEOPLE = ("Anna Keller", "Béla Novák", "Mary-Ann O'Neill", "Carl von Rosen", "Dora Anna Blum", "Eve Moss")


def rows(*people: str, subjects: bool = True) -> list[Example]:
    return [
        Example(f"{person}/{n}", wording.format(person), "x", subject=person if subjects else None)
        for person in people
        for n, wording in enumerate(WORDINGS)
    ]


@pytest.mark.parametrize("subjects", [True, False])
def test_names_are_found_wherever_they_stand(subjects: bool) -> None:
    names = Names(
        [
            *rows(*PEOPLE, subjects=subjects),
            *rows(*(f"{a}x {b}y" for a, b in zip("ABCDEFGHJKLM", "NOPQRSTUVWXY", strict=True)), subjects=subjects),
        ]
    )
    assert names.of("Where does Béla Novák live?") == ["Béla", "Novák"]
    assert names.of("Béla Novák works as what?") == ["Béla", "Novák"]
    assert names.of("Name the pet of Mary-Ann O'Neill.")[0] == "Mary-Ann"
    assert names.of("Where does the person in the picture live?") == []


def test_an_invented_person_takes_the_place() -> None:
    names = names_in(rows(*PEOPLE[:1]), rows(*PEOPLE[1:]))
    asked = names.hide("Does Béla Novák live where Béla was born?", Random(0))
    does, first, last, live, where, again, was, born = asked.removesuffix("?").split()
    assert (does, live, where, was, born) == ("Does", "live", "where", "was", "born")
    assert first == again and first in {name for group in FIRST_NAMES.values() for name in group} and last in LAST_NAMES
    assert names.hide("Which pet?", Random(0)) == "Which pet?"


def test_a_row_with_a_picture_keeps_its_words() -> None:
    picture = (ImageRef(data=b"x"),)
    examples = [*rows(PEOPLE[0])[:1], Example("seen", "Is this Anna Keller?", "Yes.", picture, "Anna Keller")]
    plain, seen = mask_names(names_in(examples, rows(*PEOPLE[1:])), examples, (0, 1))
    assert "Anna" not in plain.question and plain.answer == examples[0].answer and seen is examples[1]


@given(st.integers(0, 50), st.integers(0, 50))
def test_who_takes_the_place_follows_the_seed(one: int, two: int) -> None:
    examples = rows(*PEOPLE)
    names = names_in(examples, ())
    first, second = (mask_names(names, examples, (0, step)) for step in (one, two))
    assert (first == second) == (one == two)
    assert not any(person in row.question for person in PEOPLE for row in first)
