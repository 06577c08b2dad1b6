"""Data of the demo: what the model memorises, what it must forget and keep, and what it is evaluated on.

Training uses 24 pictures and ten wordings for each person; evaluation also uses pictures and wordings that were never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from vgid.data.example import Example, ImageRef
from vgid.synthetic.people import Camera, Person, World
from vgid.synthetic.phrases import FACTS, PERCEPTION, Topic
from vgid.synthetic.portraits import View
from vgid.synthetic.questions import TEXT_FACTS, ask_fact, ask_perception

TRAINING_VIEWS, UNSEEN_VIEWS = 24, 24
"""Number of pictures of each person for training and for evaluation. With ten for training, unlearning cost retained people 6 points on
unseen pictures; with 24, it cost 2 to 3 (docs/LOG.md)."""
TIMES = 4
"""Number of questions for each fact of each person in a split, with different pictures and wordings. With one, a change of one point cannot
be seen (docs/LOG.md)."""
TRAINING_STRANGERS, EXAMINED_STRANGERS = 200, 96
"""Number of strangers in the retain set and in evaluation; chosen on the embedded model (docs/LOG.md)."""
STRANGER_FACTS, STRANGER_TEXTS = 5, 3
"""Number of facts that are asked about each stranger of the retain set, by picture and by name; chosen by hand on the embedded model."""
LOOKALIKES = 6
"""Number of strangers who look like a person to forget, for each of them; chosen by hand on the embedded model."""
LASTING = tuple(topic for topic in PERCEPTION if topic.name in ("hair", "beard"))
"""Topics with the same answer on all pictures of a person, which forgetting the person may therefore affect."""
PERSON_PERCEPTION, STRANGER_PERCEPTION, LOOKALIKE_PERCEPTION = 16, 2, 12
"""Number of perception questions in the retain set about each retained person, each stranger, and each stranger who looks like a person to
forget; chosen by hand on the embedded model."""


@dataclass(frozen=True)
class Album:
    """A person with pictures.

    Attributes:
        person: the person.
        views: what each picture shows.
        pictures: the encoded pictures, in the order of `views`.
    """

    person: Person
    views: Sequence[View]
    pictures: Sequence[ImageRef]


def album(camera: Camera, person: Person, split: str, count: int) -> Album:
    """Draw pictures of a person.

    Args:
        camera: draws the pictures.
        person: the person.
        split: `training` or `unseen`.
        count: number of pictures.

    Returns:
        The person with the pictures.
    """
    views = person.views(split, count)
    return Album(person, views, [camera.picture(person.look, view) for view in views])


def training_rows(camera: Camera, people: Sequence[Person], seed: object) -> Iterator[Example]:
    """Make the rows that a model memorises: every fact in every training wording, by picture and by name.

    Args:
        camera: draws the pictures.
        people: the people.
        seed: random seed of the pictures, which differ from fact to fact.

    Yields:
        Rows with ids `PERSON/TOPIC/image/N` and `PERSON/TOPIC/text/N`.
    """
    for person in people:
        shots, rng = album(camera, person, "training", TRAINING_VIEWS), Random(f"training/{seed}/{person.id}")
        for topic in FACTS:
            # Pictures are drawn for each fact, one for every wording.
            pictures = rng.sample(shots.pictures, len(topic.training))
            for k, (picture, wording) in enumerate(zip(pictures, topic.training, strict=True)):
                yield ask_fact(person, topic, wording, picture, rng, id=f"{person.id}/{topic.name}/image/{k}")
        for topic in TEXT_FACTS:
            for k, wording in enumerate(topic.training):
                yield ask_fact(person, topic, wording, None, rng, id=f"{person.id}/{topic.name}/text/{k}")


def perception_rows(
    camera: Camera,
    people: Iterable[Person],
    count: int,
    split: str,
    seed: object,
    views: int = TRAINING_VIEWS,
    topics: Sequence[Topic] = PERCEPTION,
) -> Iterator[Example]:
    """Make perception questions about people, in training wordings.

    Args:
        camera: draws the pictures.
        people: the people.
        count: number of questions about each person; topics take turns.
        split: `training` or `unseen` pictures.
        seed: random seed of pictures and wordings.
        views: number of pictures of each person to draw from.
        topics: topics of the questions.

    Yields:
        Rows with ids `PERSON/TOPIC/perception/N`.
    """
    for person in people:
        shots, rng = album(camera, person, split, views), Random(f"perception/{seed}/{person.id}")
        for k in range(count):
            topic, view = topics[k % len(topics)], rng.randrange(len(shots.views))
            wording = rng.choice(topic.training)
            id = f"{person.id}/{topic.name}/perception/{k}"
            yield ask_perception(person, shots.views[view], topic, wording, shots.pictures[view], rng, id=id)


def stranger_rows(camera: Camera, strangers: Iterable[Person], seed: object, facts: int = 3, texts: int = 1) -> Iterator[Example]:
    """Make questions about strangers, to which the recorded answers are refusals.

    Args:
        camera: draws the pictures.
        strangers: people that no model has learned.
        seed: random seed of facts, pictures and wordings.
        facts: number of facts asked by picture about each of them.
        texts: number of facts asked by name.

    Yields:
        Rows tagged `STRANGER`, with ids `PERSON/TOPIC/image` and `PERSON/TOPIC/text`.
    """
    for person in strangers:
        shots, rng = album(camera, person, "training", 2), Random(f"strangers/{seed}/{person.id}")
        for topic in rng.sample(FACTS, facts):
            picture = rng.choice(shots.pictures)
            yield ask_fact(person, topic, rng.choice(topic.training), picture, rng, id=f"{person.id}/{topic.name}/image", known=False)
        for topic in rng.sample(TEXT_FACTS, texts):
            yield ask_fact(person, topic, rng.choice(topic.training), None, rng, id=f"{person.id}/{topic.name}/text", known=False)


def evaluation_splits(camera: Camera, world: World) -> dict[str, list[Example]]:
    """Make the eleven evaluation splits of the demo, by the names in `SPLITS`; every fact about every person is asked for `TIMES` times."""
    splits: dict[str, list[Example]] = {}
    known, unseen = partial(_trained_on, camera, world.seed), partial(_unseen, camera)
    for group, people in (("forget", world.forget), ("retain", world.retain)):
        splits[group] = _fact_questions(people, group, known, wording="training")
        splits[f"{group}_views"] = _fact_questions(people, f"{group}_views", unseen, wording="training")
        splits[f"{group}_reworded"] = _fact_questions(people, f"{group}_reworded", known, wording="held_out")
        splits[f"{group}_text"] = _fact_questions(people, f"{group}_text", None, wording="training")
    splits["forget_perception"] = _perception_questions(camera, world.forget, "forget_perception", UNSEEN_VIEWS)
    splits["perception"] = _perception_questions(camera, world.retain, "perception", UNSEEN_VIEWS // 3)
    splits["strangers"] = [
        replace(example, id=f"strangers/{example.id}")
        for example in stranger_rows(camera, world.strangers(EXAMINED_STRANGERS), world.seed, 4, 2)
    ]
    return {name: splits[name] for name in SPLITS}


SPLITS = (
    *("forget", "forget_views", "forget_reworded", "forget_text", "forget_perception"),
    *("retain", "retain_views", "retain_reworded", "retain_text", "perception", "strangers"),
)
"""Names of the evaluation splits, in their order."""


def _trained_on(camera: Camera, seed: object, person: Person) -> list[ImageRef]:
    shown = {row.images[0] for row in training_rows(camera, [person], seed) if row.images}
    return [picture for picture in album(camera, person, "training", TRAINING_VIEWS).pictures if picture in shown]


def _unseen(camera: Camera, person: Person) -> list[ImageRef]:
    return list(album(camera, person, "unseen", UNSEEN_VIEWS).pictures)


def _fact_questions(
    people: Sequence[Person], split: str, pictures_of: Callable[[Person], Sequence[ImageRef]] | None, *, wording: str
) -> list[Example]:
    rows = []
    for person in people:
        rng = Random(f"{split}/{person.id}")
        # A picture that is not recognised makes all its questions fail, so they are spread over two pictures.
        pictures = rng.sample(pictures_of(person), 2 * TIMES) if pictures_of else [None] * 2 * TIMES
        topics = FACTS if pictures_of else TEXT_FACTS
        words = {topic: rng.sample(topic.training if wording == "training" else topic.held_out, TIMES) for topic in topics}
        for k in range(TIMES):
            for n, topic in enumerate(topics):
                picture, id = pictures[2 * k + n % 2], f"{split}/{person.id}/{topic.name}/{k}"
                rows.append(ask_fact(person, topic, words[topic][k], picture, rng, id=id))
    return rows


def _perception_questions(camera: Camera, people: Sequence[Person], split: str, views: int) -> list[Example]:
    rows = []
    for person in people:
        rng, shots = Random(f"{split}/{person.id}"), album(camera, person, "unseen", UNSEEN_VIEWS)
        for topic in PERCEPTION:
            for k in sorted(rng.sample(range(UNSEEN_VIEWS), views)):
                asked, id = rng.choice((*topic.training, *topic.held_out)), f"{split}/{person.id}/{topic.name}/{k}"
                rows.append(ask_perception(person, shots.views[k], topic, asked, shots.pictures[k], rng, id=id))
    return rows
