"""The built-in suite: what can be seen on portraits of people whom no model has seen. It needs no network.

Questions are open, in wordings that the embedded model understands, or (`perception-options`) followed by the possible answers, for all
other models. An answer is right if the true value is the only value that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from vgid.data.example import Example
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.models.loading import LoadedModel
from vgid.progress import Progress
from vgid.synthetic.people import Camera, World
from vgid.synthetic.phrases import PERCEPTION
from vgid.synthetic.portraits import BACKGROUNDS, CLOTHES, EXPRESSIONS, GLASSES, HAIR_OF
from vgid.synthetic.questions import ask_perception, perceived
from vgid.synthetic.splits import album

PEOPLE, PICTURES = 32, 2
"""Number of strangers, and of images of each; every topic is asked about every image."""
TOKENS = 24
"""Length of an answer in tokens, at most."""
SMALL, LARGE = 96, 224
"""Sides of the images in pixels: for the embedded model, and for all others."""
VALUES: dict[str, tuple[str, ...]] = {
    "background": tuple(BACKGROUNDS),
    "glasses": (*GLASSES, "no glasses"),
    "expression": tuple(EXPRESSIONS),
    "clothes": tuple(CLOTHES),
    "hair": tuple(dict.fromkeys(HAIR_OF.values())),
    "beard": ("a beard", "a moustache", "no beard"),
}
"""The possible values of each topic."""


def questions(seed: int, *, options: bool, people: int = PEOPLE) -> list[Example]:
    """Return the suite's questions, which follow from the seed.

    Args:
        seed: random seed of people, images and wordings.
        options: put the possible answers after each question.
        people: number of people.

    Returns:
        The questions; the first of their `tags` is the topic, the only one of their `keywords` the true value.
    """
    camera, rows = Camera(LARGE if options else SMALL), []
    for person in World(seed, people=2, forget=1).strangers(people, "utility"):
        shots, rng = album(camera, person, "unseen", PICTURES), Random(f"utility/{seed}/{person.id}")
        for number, (view, picture) in enumerate(zip(shots.views, shots.pictures, strict=True)):
            for topic in PERCEPTION:
                id = f"{person.id}/{topic.name}/{number}"
                row = ask_perception(person, view, topic, rng.choice(topic.training), picture, rng, id=id)
                row = replace(row, keywords=(perceived(person, view, topic),))
                rows.append(_with_options(row, topic.name, rng) if options else row)
    return rows


def _with_options(row: Example, topic: str, rng: Random) -> Example:
    listed = ", ".join(rng.sample(VALUES[topic], len(VALUES[topic])))
    return replace(row, question=f"{row.question}\nReply with one of: {listed}.", answer=row.keywords[0])


def named_value(said: str, topic: str) -> str | None:
    """Return the one value of a topic that an answer names; None where it names none, or several.

    A value that is part of another one in the answer, such as `glasses` in `no glasses`, does not count. Articles do not matter.
    """
    bare = {value: value.removeprefix("an ").removeprefix("a ") for value in VALUES[topic]}
    found = [value for value, words in bare.items() if key_fact(said, [words])]
    apart = [value for value in found if not any(value != other and key_fact(bare[other], [bare[value]]) for other in found)]
    return apart[0] if len(apart) == 1 else None


def answer_accuracy(loaded: LoadedModel, rows: Sequence[Example], batch_size: int, on_progress: Progress | None) -> list[float]:
    """Ask a model the suite's questions.

    Args:
        loaded: the model.
        rows: questions from `questions`.
        batch_size: questions that are asked at once.
        on_progress: called with (questions answered, number of questions).

    Returns:
        For each question, 1 if the answer names the true value, else 0.
    """
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_progress is not None:
            on_progress(done, len(rows))

    said = generate(loaded, rows, max_new_tokens=TOKENS, batch_size=batch_size, on_batch=count)
    return [float(named_value(answer, row.tags[0]) == row.keywords[0]) for row, answer in zip(rows, said, strict=True)]
