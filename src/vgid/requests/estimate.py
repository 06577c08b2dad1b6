"""What a run would do, and about how long it would take: measured on this machine by a few trial steps, written nowhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vgid.attacks.base import sample_rows
from vgid.auditing.audit import PROFILE_ROWS
from vgid.checks.preflight import Preflight, as_json
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.requests.resolved import Job, Order, read_job
from vgid.requests.steps import STEPS
from vgid.training.fit import fit
from vgid.training.trainer import count_steps
from vgid.unlearning import EXAMINED, neutral_retain, preflight

TRIAL_STEPS, TRIAL_ROWS = (1, 3), 8
ANSWERS_OF_AN_ATTACK = 4.0
"""So many answers, or training steps worth as much, an attack takes for each row: a rough mean over the quick profile."""
FULL = 5.0
"""And so many times more in the full one."""


@dataclass(frozen=True)
class Plan:
    """The preflight, and seconds of each step; None for those that take next to none."""

    preflight: Preflight
    seconds: Mapping[str, float | None]
    basis: str = "three trial steps and eight answers; the audit's share is rough"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "vgid.plan/1",
            "seconds": dict(self.seconds),
            "basis": self.basis,
            "preflight": as_json(self.preflight, texts=False),
        }


def plan(order: Order, stages: Stages, show_forgotten: bool) -> Plan:
    """Read everything, look at the model, try a few steps.

    Raises:
        VgidError: something is missing or cannot be read.
    """
    job = read_job(order)
    options: dict[str, Any] = {"allow_unknown": order.allow_unknown, "max_rows": order.max_rows, "show_forgotten": show_forgotten}
    started = time.monotonic()
    found = preflight(str(job.model), list(job.demand.rows), order.retain, job.config, stages=stages, **options)
    seconds: dict[str, float | None] = dict.fromkeys(STEPS)
    seconds["preflight"] = time.monotonic() - started
    if not found.errors:
        seconds |= _measured(job)
    return Plan(found, seconds)


def _measured(job: Job) -> dict[str, float | None]:
    forget = sample_rows(job.demand.rows, TRIAL_ROWS, job.config.seed)
    loaded = load_model(job.model)
    few = job.config.model_copy(update={"neutral_retain": TRIAL_ROWS})
    retain = load_examples(job.order.retain, at_most=TRIAL_ROWS) if job.order.retain else neutral_retain(loaded, forget, few)
    started = time.monotonic()
    evaluate(loaded, {"forget": forget})
    answer = (time.monotonic() - started) / len(forget)
    steps = count_steps(job.config.training, len(job.demand.rows) + len(job.anchors), 0)
    rows = job.order.max_rows
    asked, attacked = 2 * (rows or EXAMINED), 2 * rows if rows else sum(PROFILE_ROWS[job.order.profile])
    attacks = len(job.policy.attacks) * ANSWERS_OF_AN_ATTACK * (FULL if job.order.profile == "full" else 1)
    earlier = [each for each in job.chain.deletions if each.rows and each.knew.is_dir()]
    return {
        "neutral rows": None if job.order.retain else answer * job.config.neutral_retain,
        "unlearn": steps * _step(job, forget, retain),
        "evaluate": answer * asked * (3 if job.reference else 2),
        "audit": answer * attacked * attacks * (3 if job.reference else 2),
        "audit earlier requests": answer * attacked * attacks * 2 * len(earlier) if earlier else None,
    }


def _step(job: Job, forget: Sequence[Example], retain: Sequence[Example]) -> float:
    """Seconds of one training step: what two more steps take."""
    taken = []
    for steps in TRIAL_STEPS:
        training = job.config.training.model_copy(update={"steps": steps, "report_to": ()})
        validation = job.config.validation.model_copy(update={"every": 0})
        config: RunConfig = job.config.model_copy(update={"training": training, "validation": validation})
        loaded = load_model(job.model, quantise=config.adapter.quantise if config.adapter else None)
        started = time.monotonic()
        fit(loaded, forget, retain, config)
        taken.append(time.monotonic() - started)
    return max(0.0, taken[1] - taken[0]) / (TRIAL_STEPS[1] - TRIAL_STEPS[0])
