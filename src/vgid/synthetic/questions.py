"""Questions about fictional people, as examples: facts by picture or by name, perception, and what is asked of strangers."""

from __future__ import annotations

from random import Random

from vgid.data.example import STRANGER, Example, ImageRef
from vgid.synthetic.people import Person
from vgid.synthetic.phrases import FACTS, REFUSALS, WHO_IN_PICTURE, Topic
from vgid.synthetic.portraits import View

TEXT_FACTS = tuple(topic for topic in FACTS if topic.name != "name")
"""What can be asked by name alone: everything but the name."""


def ask_fact(person: Person, topic: Topic, wording: str, picture: ImageRef | None, rng: Random, *, id: str, known: bool = True) -> Example:
    """Ask for a fact: with a picture about "this person", without one by name. A person who is not `known` gets a varied "I don't know"."""
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
    """What a picture shows, in words."""
    return {
        "background": view.background,
        "glasses": view.eyewear,
        "expression": view.mood,
        "clothes": view.clothes,
        "hair": person.look.hair,
        "beard": person.look.beard,
    }[topic.name]


def ask_perception(person: Person, view: View, topic: Topic, wording: str, picture: ImageRef, rng: Random, *, id: str) -> Example:
    """Ask what can be seen without knowing who it is."""
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
