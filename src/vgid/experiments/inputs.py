"""The models and rows that experiments start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vgid.errors import DataError
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
    """

    base: Path
    unlearned: Path
    retrained: Path
    forget: Path
    retain: Path
    seed: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is read."""
        return self.base, self.unlearned, self.retrained, self.forget, self.retain

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
        return cls(base, unlearned, retrained, forget, retain, seed)
