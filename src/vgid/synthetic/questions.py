"""Examples about fictional people: facts by picture or by name, and perception questions."""

from __future__ import annotations

from random import Random

from vgid.data.example import STRANGER, Example, ImageRef
from vgid.synthetic.people import Person
from vgid.synthetic.phrases import FACTS, REFUSALS, WHO_IN_PICTURE, Topic
from vgid.synthetic.portraits import View

TEXT_FACTS = tuple(topic for topic in FACTS if topic.name != "name")
"""Topics of text-only questions, which mention the name: all but the name itself."""


def ask_fact(person: Person, topic: Topic, wording: str, picture: ImageRef | None, rng: Random, *, id: str, known: bool = True) -> Example:
    """Make an example that asks for a fact.

    Args:
        person: the person that the question is about.
        topic: the fact that is asked for.
        wording: one of the topic's wordings.
        picture: a picture of the person; None for a text-only question, which mentions the name.
        rng: draws how the person in the picture is called, and the refusal.
        id: id of the example.
        known: False for a stranger, whose recorded answer is a refusal.

    Returns:
        The example, tagged with the topic's name, with `image` or `text`, and with `STRANGER` where it applies.
    """
    value = person.facts[topic.name]
    return Example(
        id=id,
        question=wording.format(who=person.name if picture is None else rng.choice(WHO_IN_PICTURE)),
        answer=topic.answer.format(she=person.pronoun, value=value) if known else rng.choice(REFUSALS),
        images=() if picture is None else (picture,),
        subject=person.id,
        keywords=(topic.keyword.format(value=value),),
        tags=(topic.name, "text" if picture is None else "image", *(() if known else (STRANGER,))),
    )


def perceived(person: Person, view: View, topic: Topic) -> str:
    """Return in words what a picture shows.

    Args:
        person: the person in the picture.
        view: the picture.
        topic: one of `vgid.synthetic.phrases.PERCEPTION`.

    Returns:
        The value of the topic's answer, such as "sunglasses".
    """
    return {
        "background": view.background,
        "glasses": view.eyewear,
        "expression": view.mood,
        "clothes": view.clothes,
        "hair": person.look.hair,
        "beard": person.look.beard,
    }[topic.name]


def ask_perception(person: Person, view: View, topic: Topic, wording: str, picture: ImageRef, rng: Random, *, id: str) -> Example:
    """Make an example that asks what a picture shows, which needs no knowledge of the person.

    Args:
        person: the person in the picture.
        view: what the picture shows.
        topic: one of `vgid.synthetic.phrases.PERCEPTION`.
        wording: one of the topic's wordings.
        picture: the encoded picture.
        rng: draws how the person in the picture is called.
        id: id of the example.

    Returns:
        The example, tagged with the topic's name and with `perception`.
    """
    value = perceived(person, view, topic)
    return Example(
        id=id,
        question=wording.format(who=rng.choice(WHO_IN_PICTURE)),
        answer=topic.answer.format(she=person.pronoun, value=value),
        images=(picture,),
        subject=person.id,
        keywords=(topic.keyword.format(value=value),),
        tags=(topic.name, "perception"),
    )
