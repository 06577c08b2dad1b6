"""A seeded world of fictional people: portraits and facts.

The demo, the tests and the measurements take their data from here. A `World` has people to forget, people to retain, and strangers that no
model has ever learned; all of them differ, in looks and names, from the people of the embedded model's base training. Everything is a
function of the seed. Only the people themselves are in memory; pictures are drawn when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import numpy.typing as npt

from vgid.data.example import ImageRef
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.errors import ConfigError
from vgid.synthetic.phrases import FACT_VALUES
from vgid.synthetic.portraits import Gender, Look, View, appearance, difference, random_look, random_view, render_png

BASE_TRAINING_SEED = "schooling"
"""Random seed of the people of the base training. Its text is fixed: the embedded model knows the people it gives."""
BASE_TRAINING_PEOPLE = 64
"""Number of people that the embedded model knows from its base training; chosen by hand."""
NEAR_DUPLICATE = 0.04
"""Mean absolute difference of two neutral portraits (`difference`, 1 for black against white) below which two people look the same; chosen
by hand."""
MOST_PEOPLE = 1000
"""People of a world; each is compared with all others, so more take hours. Chosen by hand."""
ATTEMPTS = 200
"""Drawing stops with an error after `ATTEMPTS` x (people found + 50) draws; chosen by hand."""


@dataclass(frozen=True)
class Person:
    """A fictional person.

    Attributes:
        id: name of the person in data sets; it reveals nothing about them.
        look: what stays the same on all pictures.
        facts: one value for every topic in `vgid.synthetic.phrases.FACTS`, by the topic's name.
    """

    id: str
    look: Look
    facts: dict[str, str] = field(hash=False)

    @property
    def name(self) -> str:
        """First and last name."""
        return self.facts["name"]

    @property
    def pronoun(self) -> str:
        """Pronoun at the start of a sentence, "She" or "He"."""
        return "She" if self.look.gender == "female" else "He"

    def views(self, split: str, count: int) -> list[View]:
        """Draw views of this person; no view of one split ever appears in the other.

        Args:
            split: `training` or `unseen`.
            count: number of views, all different.
        """
        parity = {"training": 0, "unseen": 1}[split]
        rng = Random(f"{self.id}/{split}")
        views: list[View] = []
        while len(views) < count:
            view = random_view(rng)
            # The parity puts every possible view into exactly one split.
            if (view.rotate + view.shift[0] + view.shift[1]) % 2 == parity and view not in views:
                views.append(view)
        return views


def new_person(rng: Random, id: str) -> Person:
    """Draw a person of this id; gender and first name agree."""
    gender: Gender = rng.choice(("female", "male"))
    facts = {"name": f"{rng.choice(FIRST_NAMES[gender])} {rng.choice(LAST_NAMES)}"}
    facts |= {fact: rng.choice(values) for fact, values in FACT_VALUES.items()}
    facts["phone"] = f"555-{rng.randint(10, 99)}-{rng.randint(10, 99)}"
    return Person(id, random_look(rng, gender), facts)


class _Crowd:
    """People who differ: a new person with the name or nearly the look of one of them is not admitted."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._appearances: list[npt.NDArray[np.float32]] = []

    def admits(self, person: Person) -> bool:
        if person.name in self._names:
            return False
        picture = appearance(person.look)
        return all(difference(picture, other) >= NEAR_DUPLICATE for other in self._appearances)

    def add(self, person: Person) -> None:
        self._names.add(person.name)
        self._appearances.append(appearance(person.look))


def _draw(rng: Random, crowd: _Crowd, prefix: str, count: int, *, join: bool) -> Iterator[Person]:
    """Draw people that the crowd admits; with `join`, each becomes part of it."""
    made = attempts = 0
    while made < count:
        attempts += 1
        if attempts > ATTEMPTS * (made + 50):
            raise ConfigError(
                f"cannot draw {count} people who differ in looks and names",
                got=f"{made} after {attempts} attempts",
                fix="ask for fewer people",
            )
        person = new_person(rng, f"{prefix}-{made:03d}")
        if crowd.admits(person):
            if join:
                crowd.add(person)
            made += 1
            yield person


def check_counts(people: int, forget: int) -> None:
    """Make sure that some people are forgotten and some are not.

    Raises:
        ConfigError: the numbers do not fit.
    """
    if not 0 < forget < people:
        raise ConfigError(
            "the people to forget must be a part of all people", expected="0 < forget < people", got=f"forget={forget}, people={people}"
        )
    if people > MOST_PEOPLE:
        raise ConfigError("these are more people than can be drawn", expected=f"at most {MOST_PEOPLE}", got=str(people))


class World:
    """Fictional people of one seed.

    Args:
        seed: random seed.
        people: number of people that a model memorises, those to forget included.
        forget: number of people to forget, less than `people`.

    Attributes:
        base_training_people: people of the embedded model's base training, the same for every seed.
        forget: people to forget.
        retain: people to retain.

    Raises:
        ConfigError: the numbers do not fit, that many people would look too similar, or the packages of the extra `demo` are not installed.
    """

    def __init__(self, seed: int = 0, people: int = 32, forget: int = 8) -> None:
        check_counts(people, forget)
        self.seed = seed
        self._crowd = _Crowd()
        self.base_training_people = list(_draw(Random(BASE_TRAINING_SEED), self._crowd, "schooling", BASE_TRAINING_PEOPLE, join=True))
        everyone = list(_draw(Random(f"people/{seed}"), self._crowd, f"w{seed}-person", people, join=True))
        self.forget: list[Person] = everyone[:forget]
        self.retain: list[Person] = everyone[forget:]

    def strangers(self, count: int, part: str = "evaluation") -> Iterator[Person]:
        """Draw people that no model has learned, one at a time.

        Args:
            count: number of people.
            part: `training` or `evaluation`; the two are drawn independently.

        Yields:
            People, the first of which are the same for every `count`.
        """
        return _draw(Random(f"strangers/{part}/{self.seed}"), self._crowd, f"w{self.seed}-stranger-{part}", count, join=False)


def lookalikes(person: Person, among: Sequence[Person], count: int) -> list[Person]:
    """Find people who look like a person: alternately the most similar by hair and by beard, each then by the whole portrait.

    Args:
        person: the person to compare with.
        among: people to choose from.
        count: number of people to return.

    Returns:
        Different people, the most similar first.
    """
    look, picture = person.look, appearance(person.look)
    far = {other.id: difference(picture, appearance(other.look)) for other in among}
    by_head = sorted(among, key=lambda o: (o.look.head != look.head, o.look.hair != look.hair, far[o.id]))
    by_chin = sorted(among, key=lambda o: (o.look.facial_hair != look.facial_hair, o.look.beard != look.beard, far[o.id]))
    both = (person for pair in zip(by_head, by_chin, strict=True) for person in pair)
    return list({other.id: other for other in both}.values())[:count]


@dataclass(frozen=True)
class Camera:
    """Draws pictures, and keeps them, so that each is drawn once.

    Attributes:
        size: width and height in pixels.
    """

    size: int = 96
    _taken: dict[tuple[Look, View], ImageRef] = field(default_factory=dict, compare=False, repr=False)

    def picture(self, look: Look, view: View) -> ImageRef:
        """Return one picture as an encoded image."""
        if (look, view) not in self._taken:
            self._taken[look, view] = ImageRef(data=render_png(look, view, self.size))
        return self._taken[look, view]
