"""What one model answered in an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vgid.attacks.base import Outcomes


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model.

    Attributes:
        clean: by row id, 1 where the answer to the clean question holds the fact, else 0.
        attacks: outcomes by attack and level.
        seconds: time by attack.
        decoys: by row id, the scores of the decoys in the same answers as `clean`; empty unless the audit is of few people.
    """

    clean: Mapping[str, float]
    attacks: Mapping[str, Outcomes]
    seconds: Mapping[str, float]
    decoys: Mapping[str, Sequence[float]] = field(default_factory=dict)
