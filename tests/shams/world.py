"""A small world of people who do not exist, memorised by a model as the demo does it, and a model that never met those to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vgid.attacks.base import Material, sample_alike, sample_rows
from vgid.auditing.policy import Policy, load_policy
from vgid.auditing.run import run_attacks
from vgid.config import resolve
from vgid.data.example import Example
from vgid.demo.data import DemoData, read_data, write_data
from vgid.demo.targets import TARGETS
from vgid.demo.training import training_jobs
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.people import Camera, World
from vgid.synthetic.splits import training_rows
from vgid.synthetic.tiny import IMAGE_SIZE
from vgid.training.fit import fit

PEOPLE, FORGET, STEPS = 14, 6, 160
"""People who are memorised, those of them who are forgotten, and steps of memorising: less of each than the demo has."""
ASKED, CONTROL = 96, 48
"""Forget and retain rows that an audit asks: what the quick profile asks."""
UTILITY_FLOOR = 0.8
"""Below the package's: what is asked is whether a sham is unmasked, not how well it keeps the rest."""


@dataclass(frozen=True, eq=False)
class SmallWorld:
    """The people of a seed, and in `folder`, laid out as the demo does, their data and the models `base` and `retrained`."""

    seed: int
    folder: Path

    @cached_property
    def people(self) -> World:
        return World(self.seed, PEOPLE, FORGET)

    @cached_property
    def data(self) -> DemoData:
        return read_data(self.folder / "data")

    @property
    def forget(self) -> Sequence[Example]:
        return self.data.forget

    @property
    def retain(self) -> Sequence[Example]:
        return self.data.retain

    @cached_property
    def others(self) -> list[Example]:
        """Retain rows that ask about retained people what the forget set asks about the forgotten."""
        kinds = {row.tags for row in self.forget}
        return [row for row in self.retain if row.tags in kinds]

    @cached_property
    def unseen(self) -> list[Example]:
        """Rows about people that no model was trained on."""
        return list(training_rows(Camera(IMAGE_SIZE), list(self.people.strangers(FORGET)), self.seed))

    def make(self) -> None:
        """Draw people, memorise and retrain: what is not there yet."""
        if not (self.folder / "data").is_dir():
            write_data(self.people, self.folder / "data")
        tiny = TARGETS.get("tiny")
        target = replace(tiny, memorising={**tiny.memorising, "steps": STEPS})
        for job in training_jobs(target, self.data, self.folder, self.seed):
            if not job.out.is_dir():
                job.train()

    def base(self) -> LoadedModel:
        """A fresh copy of the model that knows everyone."""
        return load_model(self.folder / "base")

    def retrained(self) -> LoadedModel:
        """A fresh copy of the model that never met those to forget."""
        return load_model(self.folder / "retrained")

    def material(self, forget: Sequence[Example] | None = None) -> Material:
        """What the quick audit asks."""
        forget = self.forget if forget is None else forget
        return Material(
            sample_rows(forget, ASKED, self.seed),
            sample_alike(self.retain, forget, CONTROL, self.seed),
            self.seed,
            sample_rows(self.unseen, ASKED, self.seed),
            pool=[*self.forget, *self.retain],
        )

    def audit(
        self, audited: LoadedModel, *attacks: str, forget: Sequence[Example] | None = None, reference: bool = True, **settings: Any
    ) -> dict[str, Any]:
        """The results of some attacks by the package's policy."""
        rules = load_policy(profile="full")
        chosen = {name: rules.attacks[name].model_copy(update={"settings": settings}) for name in attacks or load_policy().attacks}
        policy = Policy(**{**rules.model_dump(), "utility_floor": UTILITY_FLOOR, "attacks": chosen})
        models = {"base": self.base, "audited": lambda: audited, **({"retrained": self.retrained} if reference else {})}
        return run_attacks(models, self.material(forget), policy)

    @cached_property
    def suppressed(self) -> LoadedModel:
        """The base with an adapter of rank 2 that has learned to refuse: what several shams are made of."""
        settings = {"adapter.rank": 2, "adapter.alpha": 4, "training.steps": 120}
        return self.trained("idk", self.forget, self.others, merged=False, **settings)

    def trained(
        self, method: str, forget: Sequence[Example], retain: Sequence[Example], *, merged: bool = True, **settings: Any
    ) -> LoadedModel:
        """The base after some steps of a method, on a LoRA adapter that is merged unless it is wanted as it is."""
        given: Mapping[str, Any] = {"training.steps": 60, "training.forget_batch": 12, "training.retain_batch": 24, **settings}
        config = resolve(
            None, [f"{key}={value}" for key, value in {"validation.every": 0, "seed": self.seed, **given}.items()], method=method
        )
        loaded = fit(self.base(), list(forget), list(retain), config).loaded
        return replace(loaded, model=loaded.model.merge_and_unload().eval()) if merged else loaded
