"""The models and rows that experiments start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from vgid.demo.run import run_demo
from vgid.errors import ConfigError, DataError
from vgid.progress import Stages
from vgid.reading import read_json


@dataclass(frozen=True)
class SeedModels:
    """The models and rows of one seed.

    Attributes:
        base: the model before unlearning.
        unlearned: the model unlearned by VGID.
        retrained: a model that never saw the forget rows.
        forget: file of the forget rows.
        retain: file of the retain rows.
        seed: random seed of the run.
        splits: files of questions by the names of their splits; empty where only forget and retain rows are asked.
    """

    base: Path
    unlearned: Path
    retrained: Path
    forget: Path
    retain: Path
    seed: int
    splits: Mapping[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is read."""
        return self.base, self.unlearned, self.retrained, self.forget, self.retain, *self.splits.values()

    @classmethod
    def of_demo(cls, folder: Path) -> SeedModels:
        """The models of a demo that was run with `--keep-data`.

        Raises:
            DataError: the folder holds no such demo.
        """
        wanted = [folder / name for name in ("base", "merged", "retrained", "data/forget.jsonl", "data/retain.jsonl", "results.json")]
        missing = [str(path.relative_to(folder)) for path in wanted if not path.exists()]
        if missing:
            raise DataError(
                "the folder holds no demo with its models",
                where=str(folder),
                expected="what `vgid demo --keep-data` leaves",
                got=f"no {missing[0]}",
                fix=f"vgid demo --keep-data --out {folder}",
            )
        base, unlearned, retrained, forget, retain, results = wanted
        seed = read_json(results).get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise DataError("the results name no seed", where=str(results), expected="seed: a whole number", got=type(seed).__name__)
        splits = {path.stem: path for path in sorted((folder / "data" / "splits").glob("*.jsonl"))}
        return cls(base, unlearned, retrained, forget, retain, seed, splits)


def check_seeds(given: Sequence[SeedModels], seeds: int) -> None:
    """Make sure that there is something to work with, and that no seed counts twice.

    Raises:
        ConfigError: there is neither a demo nor a number of demos to run, or a seed is given twice.
    """
    taken = [run.seed for run in given]
    if len(set(taken)) < len(taken):
        twice = sorted({seed for seed in taken if taken.count(seed) > 1})
        raise ConfigError("a seed is given twice", expected="one demo of each seed", got=f"seed {twice[0]}", fix="leave one out")
    if not given and not seeds:
        raise ConfigError("there is no demo to work with", expected="demos, or a number of seeds", got="none", fix="give --demo or --seeds")


def with_new_demos(given: Sequence[SeedModels], seeds: int, first_seed: int, folder: Path, stages: Stages) -> list[SeedModels]:
    """Run demos beside those that are given.

    Args:
        given: models and rows that are there already.
        seeds: number of demos to run.
        first_seed: the first of their seeds; the others follow. Seeds that are given already are passed over.
        folder: gets a folder for each demo.
        stages: shows and times what is done.

    Returns:
        What was given, then the new demos.
    """
    taken = {run.seed for run in given}
    free = (seed for seed in count(first_seed) if seed not in taken)
    made = list(given)
    for seed in islice(free, seeds):
        place = folder / "demos" / f"seed-{seed}"
        if not (place / "results.json").is_file():
            run_demo(place, seed=seed, keep_data=True, stages=stages)
        made.append(SeedModels.of_demo(place))
    return made
