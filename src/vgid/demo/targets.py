"""The models the demo can run on: where each comes from and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.config import RunConfig, validate_config
from vgid.demo.sight import smol_path
from vgid.progress import Stages, Tick
from vgid.registry import Registry
from vgid.synthetic.tiny import tiny_path


@dataclass(frozen=True)
class Target:
    """A base model and how the demo treats it.

    Attributes:
        name: what the command line calls it.
        base: gives the folder of the base, made if need be.
        people: how many it memorises, and how many of them it forgets, unless told otherwise.
        memorising: settings of the full-parameter fine-tuning by which it memorises, and is retrained.
        unlearning: changes to our default recipe.
        repeats: so often a fact about somebody to be memorised comes for each row about strangers, or about what is to be seen.
        examined: questions in a split, at most; None asks them all.
        prepare: makes the base, where that takes long; None where it ships with the package.
        cached: whether memorised models are kept in the user's cache folder, since making them takes long.
    """

    name: str
    base: Callable[[], Path]
    people: tuple[int, int]
    memorising: Mapping[str, Any]
    unlearning: tuple[str, ...] = ()
    repeats: int = 1
    examined: int | None = None
    prepare: Callable[[Tick], object] | None = None
    cached: bool = False

    def ready(self, stages: Stages) -> None:
        """Make the base once, before two processes ask for it; a package it lacks is named at once."""
        if self.prepare:
            with stages("Teaching the base to see", "prepare") as tick:
                self.prepare(tick)

    def memorising_config(self, seed: int) -> RunConfig:
        """Fine-tuning of projector and language model on the recorded answers."""
        training = dict(self.memorising)
        return validate_config(
            {"method": {"name": "finetune"}, "adapter": None, "training": training, "validation": {"every": 0}, "seed": seed}
        )


TARGETS: Registry[Target] = Registry("target")
TARGETS.register("tiny")(
    Target(
        name="tiny",
        base=tiny_path,
        people=(24, 6),
        memorising={"steps": 240, "retain_batch": 48, "pack": 1, "learning_rate": 2e-3, "warmup_steps": 20, "optimizer": "muon"},
    )
)
TARGETS.register("smol")(
    Target(
        name="smol",
        base=smol_path,
        people=(9, 3),
        memorising={"steps": 390, "retain_batch": 24, "pack": 4, "learning_rate": 5e-4, "warmup_steps": 20, "precision": "bf16"},
        unlearning=("training.steps=80", "training.precision=bf16"),
        repeats=4,
        examined=96,
        prepare=smol_path,
        cached=True,
    )
)
