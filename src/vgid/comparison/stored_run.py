"""One run of a comparison, as it is kept: a model's answers on all splits, what it cost, and what it depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.comparison.bootstrap import Answers
from vgid.comparison.identity import Identity
from vgid.evaluation.evaluate import SplitResult

SCHEMA = "vgid.comparison.run/1"


@dataclass(frozen=True)
class Run:
    """A contender on one seed.

    Attributes:
        name: the contender's.
        seed: its people.
        identity: what the result depends on.
        config: the settings; None for the references.
        steps: optimizer steps.
        seconds: of unlearning alone.
        memory: bytes held at the most while unlearning; 0 where nothing was run.
        ended: why it ended, in words.
        looks: by side, `(step, share)`: of the rows put aside and known before, those recalled word for word on the way.
        failed: what went wrong; a run that failed has no answers.
        figures: means by split.
        answers: by split, whom each question is about and whether it was answered; nothing of what was said.
        said: by split and example, a few answers about people who do not exist, to be shown.
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
    failed: str | None = None
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Mapping[str, Answers] = field(default_factory=dict)
    said: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def accuracies(self) -> dict[str, float]:
        """Accuracy by split."""
        return {split: float(figures["accuracy"]) for split, figures in self.figures.items()}

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json_atomic(path, {"schema": SCHEMA, **asdict(self), "answers": {s: each._asdict() for s, each in self.answers.items()}})


def read_run(path: Path, identity: Identity) -> Run | None:
    """The run kept in a file if it depends on the same things and did not fail; None sends it on its way again."""
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if values.pop("schema") != SCHEMA or values["identity"] != identity or values["failed"]:
        return None
    values["answers"] = {split: Answers(**each) for split, each in values["answers"].items()}
    return Run(**values)


def judged(results: Mapping[str, SplitResult], shown: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Figures, answers and the examples shown of what `evaluate` found, as `Run` takes them."""
    return {
        "figures": {split: result.as_json() for split, result in results.items()},
        "answers": {split: _answers(result) for split, result in results.items()},
        "said": {
            split: {item.example: item.prediction for item in results[split].items if item.example in ids} for split, ids in shown.items()
        },
    }


def _answers(result: SplitResult) -> Answers:
    return Answers([item.subject or item.example for item in result.items], [item.accuracy for item in result.items])
