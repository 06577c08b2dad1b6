"""The base models that the demo can run on: where each comes from and how it is trained."""

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
    """A base model and how the demo trains it.

    Attributes:
        name: its name on the command line.
        base: returns the folder of the base, which is made first where it does not exist.
        people: number of people that it memorises, and number of those that it forgets; both can be changed on the command line.
        memorising: settings of the full-parameter fine-tuning by which it memorises, and by which the reference is retrained.
        recipe: recipe of its unlearning runs.
        overrides: changes to that recipe, as `a.b=value`.
        methods: changes for single methods, found by trials on this target.
        repeats: how often a fact about a person to memorise occurs for each row about strangers or about what is visible.
        questions_per_split: questions of each split to ask, at most; None asks them all.
        prepare: makes the base, where that takes long; None where it ships with the package.
        cached: keep memorised models in the user's cache folder, where making them takes long.
        threads: threads of each process that trains or asks a model; None for its share of the cores.
    """

    name: str
    base: Callable[[], Path]
    people: tuple[int, int]
    memorising: Mapping[str, Any]
    recipe: str = "demo"
    overrides: tuple[str, ...] = ()
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeats: int = 1
    questions_per_split: int | None = None
    prepare: Callable[[Progress], object] | None = None
    cached: bool = False
    threads: int | None = None

    def make_base(self, stages: Stages) -> None:
        """Make the base, where that takes long, before two processes need it at once.

        Raises:
            ModelError: packages that it is made from are not installed.
        """
        if self.prepare:
            with stages("Training the base to see", "prepare") as progress:
                self.prepare(progress)

    def settings(self, method: str) -> list[str]:
        """Return overrides, as `a.b=value`, for a method on this target."""
        return [*self.overrides, *self.methods.get(method, ())]

    def config(self, overrides: Iterable[str] = ()) -> RunConfig:
        """Return the configuration by which the demo unlearns on this target.

        Raises:
            ConfigError: an override cannot be applied.
        """
        return resolve(self.recipe, [*self.settings(DEFAULT_METHOD), *overrides])

    def memorising_config(self, seed: int) -> RunConfig:
        """Return the configuration of the fine-tuning by which this target memorises people."""
        return memorising_config(self.memorising, seed)


def memorising_config(training: Mapping[str, Any], seed: int) -> RunConfig:
    """Return the configuration of a full-parameter fine-tuning with these training settings, without early stopping."""
    overrides = ["adapter=null", "validation.every=0", f"seed={seed}", *(f"training.{key}={value}" for key, value in training.items())]
    return resolve("demo", overrides, method="finetune")


LEARNING_RATES = {"ga": 1e-4, "grad_diff": 1e-4, "kl_min": 1e-4, "mip_editor": 5e-4, "mmunlearner": 2e-5}
"""Learning rates of methods that collapse, or learn nothing, at the recipe's; chosen by hand on the embedded model (docs/LOG.md)."""
METHOD_SETTINGS = {name: (f"training.learning_rate={rate}",) for name, rate in LEARNING_RATES.items()}

TARGETS: Registry[Target] = Registry("target")
TARGETS.register("tiny")(
    Target(
        name="tiny",
        base=tiny_path,
        people=(24, 6),
        methods=METHOD_SETTINGS,
        memorising={"steps": 240, "retain_batch": 48, "pack": 1, "learning_rate": 2e-3, "warmup_steps": 20, "optimizer": "muon"},
        threads=1,  # two take half as much processor time again, and no less time
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
        questions_per_split=96,
        prepare=smol_path,
        cached=True,
    )
)
