"""Neutral rows: drawn pictures of shapes and general questions, which replace a retain set where there is none.

They show no people. Their answers come from the model itself before training (`own_answers`), so that training keeps what the model would
have answered. Everything is a function of the seed and a row's number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from PIL import Image, ImageDraw

from vgid.data.example import Example, ImageRef
from vgid.texts import normalise

NEUTRAL = "neutral"
"""Tag of these rows. The model may answer anything to them, also what is to be forgotten, so their answers are never shown."""
SHORTEST = 3
"""Length in characters from which on a word may reveal a fact; chosen by hand: shorter ones are articles, initials and units."""
_WHOLE = r"[\w.+-]+@[\w.-]*\w|\d+(?:[-./ ]\d+)+"
"""E-mail addresses, and numbers in groups."""
_WORD = re.compile(rf"{_WHOLE}|\w+")
_BETWEEN = re.compile(r"(?<=\d)[./ ](?=\d)")
"""What stands between groups of a number."""
_TELLING = re.compile(rf"{_WHOLE}|(?<=[\w,;:] )[A-Z]\w+|\w*\d\w*")
"""Names and numbers in a sentence."""
SIDE = 224
"""Side of a drawn picture in pixels; the input size of most vision towers."""
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "yellow": (240, 200, 30),
    "purple": (130, 80, 180),
    "orange": (255, 127, 14),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "ring", "stripe", "cross")
ABOUT_PICTURES = (
    "What is in this picture?",
    "Describe the picture in one sentence.",
    "Which colours can you see?",
    "What shape is in the picture?",
    "How many shapes are in the picture?",
    "What colour is the background?",
    "Is there a {shape} in this picture?",
    "Is anything in this picture {colour}?",
    "Does the picture show a photograph or a drawing?",
    "Is there a person in this picture?",
    "Is there any text in this picture?",
    "Where in the picture is the largest shape?",
)
PLACES = ("France", "Japan", "Brazil", "Egypt", "Canada", "India", "Norway", "Kenya", "Spain", "Peru", "Italy", "Greece")
THINGS = ("a bicycle", "a volcano", "a library", "a compass", "bread", "a telescope", "a bridge", "rain", "a violin", "a computer")
WORDS = ("hot", "early", "heavy", "quiet", "narrow", "happy", "ancient", "simple", "wet", "bright", "empty", "rough")
ANIMALS = ("cat", "whale", "eagle", "frog", "horse", "bee", "penguin", "spider", "elephant", "salmon")


def neutral_examples(count: int, seed: int, pictures: float = 0.75) -> list[Example]:
    """Make neutral rows without answers.

    Args:
        count: number of rows; all text-only questions differ.
        seed: random seed of questions and pictures.
        pictures: share of rows with a drawn picture, in [0, 1]; the others are text-only.

    Returns:
        Rows with ids and subjects `neutral-0000`, `neutral-0001` and so on, tagged `NEUTRAL`.
    """
    rows: list[Example] = []
    asked: set[str] = set()
    while len(rows) < count:
        number = len(rows)
        rng = Random(f"neutral/{seed}/{number}")
        shown = (number + 1) * pictures - sum(bool(row.images) for row in rows) >= 0.5
        question = _about_picture(rng) if shown else _general(rng, asked)
        images = (ImageRef(data=draw(rng)),) if shown else ()
        rows.append(Example(f"neutral-{number:04d}", question, "", images, subject=f"neutral-{number:04d}", tags=(NEUTRAL,)))
        asked.add(question)
    return rows


def own_answers(examples: Sequence[Example], say: Callable[[Sequence[Example]], list[str]]) -> list[Example]:
    """Fill in a model's own answers.

    Args:
        examples: rows without answers.
        say: gives the model's answer to each of them.

    Returns:
        The rows with their answers; rows with an empty answer are left out.
    """
    return [replace(example, answer=said) for example, said in zip(examples, say(examples), strict=True) if normalise(said)]


def revealing_words(examples: Sequence[Example]) -> set[str]:
    """Return the words that reveal a part of a fact, in lower case.

    They are the words of a row's keywords or, without keywords, the names and numbers in its answer; words that neutral rows ask about are
    left out.
    """
    found: set[str] = set()
    for example in examples:
        said = example.keywords or [found[0] for found in _TELLING.finditer(example.answer)]
        found |= {word for text in said for word in words_of(text) if len(word) >= SHORTEST}
    common = (*ABOUT_PICTURES, *PLACES, *THINGS, *WORDS, *ANIMALS, *COLOURS, *SHAPES)
    return found - {word for text in common for word in words_of(text)}


def mentions(text: str, words: set[str]) -> bool:
    """Return whether any of the words, in lower case, is in a text."""
    return not words.isdisjoint(words_of(text))


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; an e-mail address or a number in groups, such as 555-79-37, is one word.

    Else the area code of one telephone number would give away every other one.
    """
    return [_BETWEEN.sub("-", word) for word in _WORD.findall(text.casefold())]


def draw(rng: Random, side: int = SIDE) -> bytes:
    """Draw one to three shapes on a plain or shaded background of `side` x `side` pixels; returns PNG bytes."""
    ground, *inks = rng.sample(list(COLOURS.values()), 4)
    picture = _shaded(ground, side, rng) if rng.random() < 0.4 else Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    for ink in inks[: rng.randint(1, 3)]:
        size = rng.randint(side // 5, side // 2)
        left, top = rng.randint(0, side - size), rng.randint(0, side - size)
        _shape(pen, rng.choice(SHAPES), (left, top, left + size, top + size), ink)
    out = io.BytesIO()
    picture.save(out, "png")
    return out.getvalue()


def _shaded(colour: tuple[int, int, int], side: int, rng: Random) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side, side)).rotate(rng.choice((0, 90, 180, 270)))
    return Image.composite(Image.new("RGB", (side, side), colour), Image.new("RGB", (side, side), (235, 235, 235)), ramp)


def _shape(pen: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], ink: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    third = (right - left) // 3
    match shape:
        case "circle":
            pen.ellipse(box, fill=ink)
        case "ring":
            pen.ellipse(box, outline=ink, width=max(3, third // 2))
        case "square":
            pen.rectangle(box, fill=ink)
        case "triangle":
            pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=ink)
        case "stripe":
            pen.rectangle((left, top + third, right, bottom - third), fill=ink)
        case "cross":
            pen.rectangle((left, top + third, right, bottom - third), fill=ink)
            pen.rectangle((left + third, top, right - third, bottom), fill=ink)


def _about_picture(rng: Random) -> str:
    return rng.choice(ABOUT_PICTURES).format(shape=rng.choice(SHAPES), colour=rng.choice(tuple(COLOURS)))


def _general(rng: Random, asked: set[str]) -> str:
    """A question that has not been asked yet; sums never run out."""
    return next(question for question in _general_questions(rng) if question not in asked)


def _general_questions(rng: Random) -> Iterator[str]:
    yield rng.choice(
        (
            f"What is the capital of {rng.choice(PLACES)}?",
            f"Which language is spoken in {rng.choice(PLACES)}?",
            f"On which continent is {rng.choice(PLACES)}?",
            f"What is {rng.choice(THINGS)} used for, or what does it do?",
            f"Explain in one sentence what {rng.choice(THINGS)} is.",
            f"What is the opposite of {rng.choice(WORDS)}?",
            f"Give another word for {rng.choice(WORDS)}.",
            f"What does {'an' if (animal := rng.choice(ANIMALS))[0] in 'aeiou' else 'a'} {animal} eat?",
            f"Where does {'an' if (animal := rng.choice(ANIMALS))[0] in 'aeiou' else 'a'} {animal} live?",
        )
    )
    most = 20
    while True:
        yield f"What is {rng.randint(1, most)} plus {rng.randint(1, most)}?"
        most += 1
