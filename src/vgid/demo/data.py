"""The demo's data as files: forget, retain and practice rows, and the splits that every model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vgid.attacks.base import sample_rows
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples
from vgid.demo.practice import practice_rows
from vgid.synthetic.people import Camera, World, lookalikes
from vgid.synthetic.phrases import PERCEPTION
from vgid.synthetic.splits import (
    LASTING,
    LOOKALIKE_PERCEPTION,
    LOOKALIKES,
    PERSON_PERCEPTION,
    SPLITS,
    STRANGER_FACTS,
    STRANGER_PERCEPTION,
    STRANGER_TEXTS,
    TRAINING_STRANGERS,
    evaluation_splits,
    perception_rows,
    stranger_rows,
    training_rows,
)
from vgid.synthetic.tiny import IMAGE_SIZE

Splits = dict[str, list[Example]]
"""Questions by the name of their split, in the order of `vgid.synthetic.splits.SPLITS`."""


class DemoData(NamedTuple):
    """The rows of one world.

    Attributes:
        forget: rows about the people to forget.
        retain: rows about the other people and about strangers, and perception questions.
        practice: rows that only memorising uses; see `vgid.demo.practice`.
        splits: questions that models are evaluated on, by split.
    """

    forget: Sequence[Example]
    retain: Sequence[Example]
    practice: Sequence[Example]
    splits: Splits


def write_data(world: World, folder: Path, questions_per_split: int | None = None) -> None:
    """Write the rows of a world as JSONL files with pictures, in the format that all commands read.

    Args:
        world: the people; its seed decides every row.
        folder: gets `forget.jsonl`, `retain.jsonl`, `practice.jsonl` and `splits/NAME.jsonl`.
        questions_per_split: questions of each split to keep, at most; None keeps all.

    Raises:
        OutputError: a file cannot be written.
    """
    camera = Camera(IMAGE_SIZE)
    strangers = list(world.strangers(TRAINING_STRANGERS, "training"))
    # A forgotten person's looks must not be forgotten with them, so strangers who look alike get more perception questions than others.
    alike = {other for person in world.forget for other in lookalikes(person, strangers, LOOKALIKES)}
    others = [other for other in strangers if other not in alike]
    retained = chain(
        training_rows(camera, world.retain, world.seed),
        perception_rows(camera, world.retain, PERSON_PERCEPTION, "training", world.seed),
        stranger_rows(camera, strangers, world.seed, STRANGER_FACTS, STRANGER_TEXTS),
        perception_rows(camera, others, STRANGER_PERCEPTION, "training", world.seed, views=2),
        perception_rows(
            camera,
            sorted(alike, key=lambda other: other.id),
            LOOKALIKE_PERCEPTION,
            "training",
            world.seed,
            views=2,
            topics=(*PERCEPTION, *LASTING),
        ),
    )
    write_examples(folder / "forget.jsonl", list(training_rows(camera, world.forget, world.seed)))
    write_examples(folder / "retain.jsonl", list(retained))
    write_examples(folder / "practice.jsonl", list(practice_rows(camera, world)))
    for name, examples in evaluation_splits(camera, world).items():
        write_examples(folder / "splits" / f"{name}.jsonl", sample_rows(examples, questions_per_split or len(examples), world.seed))


def read_data(folder: Path) -> DemoData:
    """Read what `write_data` wrote.

    Raises:
        DataError: a file is missing or damaged.
    """
    forget, retain, practice = (load_examples(folder / f"{name}.jsonl") for name in ("forget", "retain", "practice"))
    return DemoData(forget, retain, practice, {name: load_examples(folder / "splits" / f"{name}.jsonl") for name in SPLITS})
