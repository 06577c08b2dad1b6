"""The models the demo can run on: where each comes from and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vgid.config import RunConfig, resolve
from vgid.demo.sight import smol_path
from vgid.progress import Progress, Stages
from vgid.registry import Registry
from vgid.settings import DEFAULT_METHOD
from vgid.synthetic.tiny import tiny_path


@dataclass(frozen=True)
class Target:
    """A base model and how the demo treats it.

    Attributes:
        name: what the command line calls it.
        base: gives the folder of the base, made if need be.
        people: how many it memorises, and how many of them it forgets, unless told otherwise.
        memorising: settings of the full-parameter fine-tuning by which it memorises, and is retrained.
        recipe: recipe of its unlearning runs.
        overrides: changes to that recipe.
        methods: changes for single methods, found by trials on this target.
        repeats: so often a fact about somebody to be memorised comes for each row about strangers, or about what is to be seen.
        examined: questions in a split, at most; None asks them all.
        prepare: makes the base, where that takes long; None where it ships with the package.
        cached: whether memorised models are kept in the user's cache folder, since making them takes long.
    """

    name: str
    base: Callable[[], Path]
    people: tuple[int, int]
    memorising: Mapping[str, Any]
    recipe: str = "demo"
    overrides: tuple[str, ...] = ()
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeats: int = 1
    examined: int | None = None
    prepare: Callable[[Progress], object] | None = None
    cached: bool = False

    def ready(self, stages: Stages) -> None:
        """Make the base once, before two processes ask for it; a package it lacks is named at once."""
        if self.prepare:
            with stages("Teaching the base to see", "prepare") as tick:
                self.prepare(tick)

    def settings(self, method: str) -> list[str]:
        """Overrides for a method on this target."""
        return [*self.overrides, *self.methods.get(method, ())]

    def config(self, overrides: Iterable[str] = ()) -> RunConfig:
        """The configuration by which the demo unlearns on this target."""
        return resolve(self.recipe, [*self.settings(DEFAULT_METHOD), *overrides])

    def memorising_config(self, seed: int) -> RunConfig:
        """Fine-tuning of projector and language model on the recorded answers."""
        return memorising_config(self.memorising, seed)


def memorising_config(training: Mapping[str, Any], seed: int) -> RunConfig:
    """Full-parameter fine-tuning with these training settings, without early stopping."""
    overrides = ["adapter=null", "validation.every=0", f"seed={seed}", *(f"training.{key}={value}" for key, value in training.items())]
    return resolve("demo", overrides, method="finetune")


LEARNING_RATES = {"ga": 1e-4, "grad_diff": 1e-4, "kl_min": 1e-4, "mip_editor": 5e-4, "mmunlearner": 2e-5}
"""Learning rates of methods that collapse, or go nowhere, at the recipe's; chosen by hand on the embedded model (docs/LOG.md)."""
METHOD_SETTINGS = {name: (f"training.learning_rate={rate}",) for name, rate in LEARNING_RATES.items()}

TARGETS: Registry[Target] = Registry("target")
TARGETS.register("tiny")(
    Target(
        name="tiny",
        base=tiny_path,
        people=(24, 6),
        methods=METHOD_SETTINGS,
        memorising={"steps": 240, "retain_batch": 48, "pack": 1, "learning_rate": 2e-3, "warmup_steps": 20, "optimizer": "muon"},
    )
)
TARGETS.register("smol")(
    Target(
        name="smol",
        base=smol_path,
        people=(9, 3),
        methods=METHOD_SETTINGS,
        memorising={"steps": 390, "retain_batch": 24, "pack": 4, "learning_rate": 5e-4, "warmup_steps": 20, "precision": "bf16"},
        overrides=("training.steps=80", "training.precision=bf16"),
        repeats=4,
        examined=96,
        prepare=smol_path,
        cached=True,
    )
)
