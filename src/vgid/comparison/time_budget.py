"""Equal time: how many steps of a method take as long as VGID's run.

The steps are counted before the run, from the time of a few steps on the same model and data, so that the learning rate's schedule ends
with the run, and so that a run with the same number of steps gives the same model on any machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.models.loading import load_model
from vgid.training.fit import fit

TRIED = 8
"""Steps whose time is taken; the first, which warms up, does not count."""


def steps_in(seconds: float, base: Path, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig) -> int:
    """Steps that fit into `seconds`, what comes before the first of them included; at least one."""
    ends: list[float] = []
    short = config.model_copy(
        update={
            "training": config.training.model_copy(update={"steps": TRIED}),
            "validation": config.validation.model_copy(update={"every": 0}),
        }
    )
    loaded, started = load_model(base), time.monotonic()
    fit(loaded, forget, retain, short, progress=lambda done, total: ends.append(time.monotonic()))
    return count(seconds, started, ends)


def count(seconds: float, started: float, ends: Sequence[float]) -> int:
    """max(1, (seconds - preparation) / step), rounded down: a step is the median of those tried but for the first.

    Preparation is what passed before the first step ended, less a step. `ends` holds the times at which steps ended.
    """
    step = median(after - before for before, after in pairwise(ends))
    preparation = max(0.0, ends[0] - started - step)
    return max(1, int((seconds - preparation) / step))
