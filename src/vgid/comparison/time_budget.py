"""Equal time: the number of steps of a method that take as long as another method's run.

The steps are counted before the run, from the time of a few steps on the same model and data. So the schedule of the learning rate ends
with the run, and a run with the same number of steps gives the same model on any machine.
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

TIMED_STEPS = 8
"""Steps to measure; the first, which warms caches up, does not count, so the median is over 7."""


def steps_within(seconds: float, base: Path, forget: Sequence[Example], retain: Sequence[Example], config: RunConfig) -> int:
    """Measure how many steps fit into a time budget.

    Args:
        seconds: the time budget, which includes what comes before the first step.
        base: folder of the model to unlearn from.
        forget: rows to forget.
        retain: rows to retain.
        config: configuration of the run; its steps and its validation are replaced.

    Returns:
        The number of steps, at least one.
    """
    ends: list[float] = []
    short = config.model_copy(
        update={
            "training": config.training.model_copy(update={"steps": TIMED_STEPS}),
            "validation": config.validation.model_copy(update={"every": 0}),
        }
    )
    loaded, started = load_model(base), time.monotonic()
    fit(loaded, forget, retain, short, progress=lambda done, total: ends.append(time.monotonic()))
    return count_steps(seconds, started, ends)


def count_steps(seconds: float, started: float, ends: Sequence[float]) -> int:
    """Return max(1, (seconds - preparation) / step), rounded down.

    A step is the median of the measured steps except the first; preparation is the time to the end of the first step, minus one step.

    Args:
        seconds: the time budget.
        started: time at which the measured run started, in seconds of any clock.
        ends: times at which its steps ended, by the same clock.
    """
    step = median(after - before for before, after in pairwise(ends))
    preparation = max(0.0, ends[0] - started - step)
    return max(1, int((seconds - preparation) / step))
