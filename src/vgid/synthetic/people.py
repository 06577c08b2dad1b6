"""A seeded world of people who do not exist: portraits, facts, and questions about both.

The demo, the tests and the benchmarks take their data from here. A `World` has people to forget, people to retain and strangers that no
model has ever learned; all of them differ, by eye and by name, from the people the embedded base model was schooled on. Everything
is a function of the seed; nothing is held in memory but the people themselves, pictures are drawn when asked for.
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
BASE_TRAINING_PEOPLE = 64
NEAR_DUPLICATE = 0.04
"""Two looks whose neutral portraits differ by less (mean absolute difference, of 1) are taken for the same person."""


@dataclass(frozen=True)
class Person:
    """A fictional person: an opaque id, a look and one value for every fact in `FACTS`."""

    id: str
    look: Look
    facts: dict[str, str] = field(hash=False)

    @property
    def name(self) -> str:
        """First and last name."""
        return self.facts["name"]

    @property
    def pronoun(self) -> str:
        """ "She" or "He"."""
        return "She" if self.look.gender == "female" else "He"

    def views(self, split: str, count: int) -> list[View]:
        """Draw `count` pictures of this person; no view of one split ever appears in another."""
        parity = {"training": 0, "unseen": 1}[split]
        rng = Random(f"{self.id}/{split}")
        views: list[View] = []
        while len(views) < count:
            view = random_view(rng)
            # Each possible view belongs to exactly one split, whatever is drawn.
            if (view.rotate + view.shift[0] + view.shift[1]) % 2 == parity and view not in views:
                views.append(view)
        return views


def new_person(rng: Random, id: str) -> Person:
    """Draw a person; gender and first name agree."""
    gender: Gender = rng.choice(("female", "male"))
    facts = {"name": f"{rng.choice(FIRST_NAMES[gender])} {rng.choice(LAST_NAMES)}"}
    facts |= {fact: rng.choice(values) for fact, values in FACT_VALUES.items()}
    facts["phone"] = f"555-{rng.randint(10, 99)}-{rng.randint(10, 99)}"
    return Person(id, random_look(rng, gender), facts)


class _Crowd:
    """People who can be told apart: a newcomer who looks like or is named like one of them is refused."""

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
    """Draw people whom the crowd admits; with `join` each becomes part of it."""
    made = attempts = 0
    while made < count:
        attempts += 1
        if attempts > 200 * (made + 50):
            raise ConfigError(
                f"cannot draw {count} people who can be told apart", got=f"{made} after {attempts} attempts", fix="ask for fewer people"
            )
        person = new_person(rng, f"{prefix}-{made:03d}")
        if crowd.admits(person):
            if join:
                crowd.add(person)
            made += 1
            yield person


class World:
    """Fictional people and everything that can be asked about them.

    Args:
        seed: everything follows from it.
        people: how many the model memorises, those to forget included.
        forget: how many of them are to be forgotten.

    Raises:
        ConfigError: when the numbers do not fit, or so many people cannot be told apart by their portraits.
    """

    def __init__(self, seed: int = 0, people: int = 32, forget: int = 8) -> None:
        if not 0 < forget < people:
            raise ConfigError(
                "the forget set must be a part of the people", expected="0 < forget < people", got=f"forget={forget}, people={people}"
            )
        self.seed = seed
        self._crowd = _Crowd()
        self.base_training_people = list(_draw(Random(BASE_TRAINING_SEED), self._crowd, "schooling", BASE_TRAINING_PEOPLE, join=True))
        everyone = list(_draw(Random(f"people/{seed}"), self._crowd, f"w{seed}-person", people, join=True))
        self.forget: list[Person] = everyone[:forget]
        self.retain: list[Person] = everyone[forget:]

    def strangers(self, count: int, part: str = "evaluation") -> Iterator[Person]:
        """Stream people nobody has learned; parts ("training", "evaluation") are drawn independently."""
        return _draw(Random(f"strangers/{part}/{self.seed}"), self._crowd, f"w{self.seed}-stranger-{part}", count, join=False)


def lookalikes(person: Person, among: Sequence[Person], count: int) -> list[Person]:
    """People who look like somebody: half of them by what is on the head, half by what is on the chin, then by all of the portrait."""
    look, picture = person.look, appearance(person.look)
    far = {other.id: difference(picture, appearance(other.look)) for other in among}
    by_head = sorted(among, key=lambda o: (o.look.head != look.head, o.look.hair != look.hair, far[o.id]))
    by_chin = sorted(among, key=lambda o: (o.look.facial_hair != look.facial_hair, o.look.beard != look.beard, far[o.id]))
    both = (person for pair in zip(by_head, by_chin, strict=True) for person in pair)
    return list({other.id: other for other in both}.values())[:count]


@dataclass(frozen=True)
class Camera:
    """Takes the pictures: `size` pixels square; the same picture is drawn only once while it is remembered."""

    size: int = 96
    _taken: dict[tuple[Look, View], ImageRef] = field(default_factory=dict, compare=False, repr=False)

    def picture(self, look: Look, view: View) -> ImageRef:
        """Give one picture as an encoded image."""
        if (look, view) not in self._taken:
            self._taken[look, view] = ImageRef(data=render_png(look, view, self.size))
        return self._taken[look, view]
