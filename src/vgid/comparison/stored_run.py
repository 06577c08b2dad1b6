"""One run of a comparison, as it is stored: a model's answers to all splits, what it cost, and what it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.comparison.bootstrap import SplitAnswers
from vgid.comparison.identity import Identity
from vgid.errors import DataError
from vgid.evaluation.evaluate import SplitResult
from vgid.reading import read_json

SCHEMA = "vgid.comparison.run/1"


@dataclass(frozen=True)
class Run:
    """The run of an entry, of the base, or of the reference on one seed; fields have the names of the stored JSON.

    Attributes:
        name: name of the entry.
        seed: the random seed.
        identity: what the result depends on.
        config: settings of the run; None for the base and the reference.
        steps: optimizer steps.
        seconds: duration of unlearning alone.
        memory: peak memory while unlearning, in bytes; 0 where nothing was run.
        ended: why the run ended, in words.
        looks: evaluations on the validation rows during the run: by side, `(step, share)` with the share of rows known before that are
            recalled word for word.
        curves: parts of the loss, and drift of the validation rows, by name: `(step, value)`, a point for several steps.
        failed: what went wrong; a run that failed has no answers. None for a run that succeeded.
        figures: means by split.
        answers: by split, the subject of each question and whether it was answered; nothing of what was said.
        said: by split and example, answers about people who do not exist, for the page.
    """

    name: str
    seed: int
    identity: Identity
    config: Mapping[str, Any] | None
    steps: int
    seconds: float
    memory: int
    ended: str
    looks: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    failed: str | None = None
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Mapping[str, SplitAnswers] = field(default_factory=dict)
    said: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def accuracies(self) -> dict[str, float]:
        """Return the accuracy by split, in [0, 1]."""
        return {split: float(figures["accuracy"]) for split, figures in self.figures.items()}

    def write(self, path: Path) -> None:
        """Write the run to a file, completely or not at all."""
        write_json_atomic(path, {"schema": SCHEMA, **asdict(self), "answers": {s: each._asdict() for s, each in self.answers.items()}})


def read_run(path: Path, identity: Identity) -> Run | None:
    """Read a stored run.

    Args:
        path: its file.
        identity: what the run must depend on.

    Returns:
        The run; None if there is none, it depends on other things, or it failed, so that it has to run again.
    """
    if not path.is_file():
        return None
    values = read_json(path)
    if values.pop("schema", None) != SCHEMA or values.get("identity") != identity or values.get("failed"):
        return None
    try:
        values["answers"] = {split: SplitAnswers(**each) for split, each in values["answers"].items()}
        return Run(**values)
    except (TypeError, KeyError, AttributeError):
        raise DataError("the stored run cannot be read", where=path, expected=f"schema {SCHEMA}", fix="remove the file") from None


def evaluation_fields(results: Mapping[str, SplitResult], shown: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the fields of a `Run` that an evaluation gives.

    Args:
        results: what `evaluate` returned, by split.
        shown: by split, ids of the examples with answers that the page shows.

    Returns:
        `figures`, `answers` and `said`.
    """
    # Not `subject_key`: these names are stored, and the draws of the bootstrap follow from them.
    return {
        "figures": {split: result.as_json() for split, result in results.items()},
        "answers": {
            split: SplitAnswers([item.subject or item.example for item in result.items], [item.accuracy for item in result.items])
            for split, result in results.items()
        },
        "said": {
            split: {item.example: item.prediction for item in results[split].items if item.example in ids} for split, ids in shown.items()
        },
    }
