"""A model that knows people, without training in the test: the embedded base, and the people of its base training."""

from dataclasses import replace

from vgid.attacks import Material
from vgid.data.example import Example
from vgid.synthetic.people import Camera, Person, World
from vgid.synthetic.phrases import FACTS
from vgid.synthetic.questions import ask_fact
from vgid.synthetic.splits import album

CAMERA, WORLD = Camera(96), World(0, people=4, forget=3)


def rows(people: list[Person], facts: int = 3, texts: int = 1, view: str = "training") -> list[Example]:
    """The name and other facts by picture, and facts by name."""
    import random

    out = []
    for person in people:
        picture, rng = album(CAMERA, person, view, 1).pictures[0], random.Random(person.id)
        out += [ask_fact(person, t, t.training[0], picture, rng, id=f"{person.id}/{t.name}/image") for t in FACTS[:facts]]
        out += [ask_fact(person, t, t.training[0], None, rng, id=f"{person.id}/{t.name}/text") for t in FACTS[1 : 1 + texts]]
    return out


def material(forget: int = 4, retain: int = 4, facts: int = 3, texts: int = 1) -> Material:
    """People of the base training, whom the base knows, to forget and to retain; and people that no model was trained on."""
    people = WORLD.base_training_people
    return Material(
        rows(people[:forget], facts, texts),
        rows(people[forget : forget + retain], facts, texts),
        seed=3,
        unseen=rows(WORLD.forget, facts, texts),
    )


def without_pictures(given: Material) -> Material:
    """The rows that have none."""
    return replace(given, forget=[r for r in given.forget if not r.images], retain=[r for r in given.retain if not r.images])
