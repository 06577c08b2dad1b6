"""The demo's steps, on generated files, by the same functions the commands call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vgid.attacks.base import sample_rows
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import load_examples, write_examples
from vgid.demo.practice import practice_rows
from vgid.demo.targets import Target
from vgid.demo.teachers import examine_teachers
from vgid.demo.training import Lesson, side_by_side
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
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
from vgid.training.fit import Fitted, fit
from vgid.unlearning import train_and_export

ABLATIONS: dict[str, tuple[str, ...]] = {
    "noise only": ("method.instruction=null",),
    "instruction only": ("method.noise.kind=none", "method.mask_names=false"),
    "both": (),
}
Splits = dict[str, list[Example]]
Results = dict[str, SplitResult]


def write_data(world: World, folder: Path, examined: int | None = None) -> None:
    """Write forget, retain and practice rows, and the evaluation splits (`examined` questions each, at most), as files anyone can read."""
    camera = Camera(IMAGE_SIZE)
    strangers = list(world.strangers(TRAINING_STRANGERS, "training"))
    alike = {other for person in world.forget for other in lookalikes(person, strangers, LOOKALIKES)}
    others = [other for other in strangers if other not in alike]
    kept = chain(
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
    write_examples(folder / "retain.jsonl", list(kept))
    write_examples(folder / "practice.jsonl", list(practice_rows(camera, world)))
    for name, examples in evaluation_splits(camera, world).items():
        write_examples(folder / "splits" / f"{name}.jsonl", sample_rows(examples, examined or len(examples), world.seed))


class Data(NamedTuple):
    """What `write_data` wrote, read again."""

    forget: Sequence[Example]
    retain: Sequence[Example]
    practice: Sequence[Example]
    splits: Splits


def read_data(folder: Path) -> Data:
    """Read what `write_data` wrote."""
    forget, retain, practice = (load_examples(folder / f"{name}.jsonl") for name in ("forget", "retain", "practice"))
    return Data(forget, retain, practice, {name: load_examples(folder / "splits" / f"{name}.jsonl") for name in SPLITS})


def lessons_of(target: Target, data: Data, out: Path, seed: int) -> tuple[Lesson, Lesson]:
    """How the model that memorises everyone, and the one that never meets those to forget, come about below `out`."""
    facts = {row.tags for row in data.forget}
    kept = [*data.retain, *(target.repeats - 1) * [row for row in data.retain if row.tags in facts], *data.practice]
    return (
        Lesson(target, out / "base", [*target.repeats * list(data.forget), *kept], seed),
        Lesson(target, out / "retrained", kept, seed),
    )


@dataclass(frozen=True)
class Demo:
    """What the demo found out: for each model and split the answers; models by what they went through."""

    world: World
    splits: Splits
    evaluated: Mapping[str, Results]
    ablation: Mapping[str, Results]
    teachers: Mapping[str, Mapping[str, float]]
    unlearned: Fitted
    config: RunConfig
    seconds: Mapping[str, float]


def run_demo(out: Path, *, target: Target, people: int | None, forget: int | None, seed: int, ablation: bool, stages: Stages) -> Demo:
    """Memorise, retrain, unlearn, examine; data and models are written below `out`.

    Raises:
        ConfigError: the numbers of people do not fit.
    """
    target.ready(stages)
    world = World(seed, people or target.people[0], forget or target.people[1])
    with stages("Drawing people", "data"):
        write_data(world, out / "data", target.examined)
        data = read_data(out / "data")
    config = target.config([f"seed={seed}"])
    with stages("Memorising everyone", "memorise") as memorised, stages("Retraining without them", "retrain") as retrained:
        side_by_side(lessons_of(target, data, out, seed), (memorised, retrained))
    with stages("Unlearning by VGID", "unlearn") as tick:
        unlearned = train_and_export(load_model(out / "base"), data.forget, data.retain, config, out=out, progress=tick)
    evaluated = {}
    for name in ("base", "merged", "retrained"):
        evaluated["unlearned" if name == "merged" else name] = _examine(load_model(out / name), data.splits, stages, name)
    parts = {name: target.config([*changes, f"seed={seed}"]) for name, changes in ABLATIONS.items()}
    ablated, teachers = {}, {}
    if ablation:
        teachers = examine_teachers(load_model(out / "base"), data.splits["forget"], parts)
        for name, part in parts.items():
            with stages(f"Unlearning with {name}", "ablation") as tick:
                fitted = fit(load_model(out / "base"), data.forget, data.retain, part, progress=tick)
            ablated[name] = _examine(fitted.loaded, data.splits, stages, name)
    return Demo(world, data.splits, evaluated, ablated, teachers, unlearned, config, stages.seconds)


def _examine(loaded: LoadedModel, splits: Splits, stages: Stages, name: str) -> Results:
    with stages(f"Examining the {name} model", "evaluate") as tick:
        return evaluate(loaded, splits, on_progress=tick)
