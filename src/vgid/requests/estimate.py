"""The dry run: what a run would do and about how long it would take, measured by a few trial steps; nothing is written."""

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
from vgid.enrichment import KINDS, Enriched
from vgid.errors import ModelError
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.requests.options import ForgetOptions
from vgid.requests.resolved import ResolvedRun, resolve_run
from vgid.requests.steps import STEPS, enriched
from vgid.training.fit import fit
from vgid.training.trainer import count_steps
from vgid.unlearning import EXAMINED, neutral_retain, preflight

TRIAL_STEPS = 3
"""Training steps of the trial; the first is not timed, for what happens once, such as compilation, is in it."""
TRIAL_ROWS = 8
"""Rows that the trials answer and train on; chosen by hand."""
ANSWERS_PER_ATTACK = 4.0
"""Time of an attack for one row, in units of one answer: a rough mean over the quick profile, chosen by hand."""
FULL_PROFILE = 5.0
"""Time of the full profile, in units of the quick one's; chosen by hand."""


@dataclass(frozen=True)
class RunEstimate:
    """What a dry run found.

    Attributes:
        preflight: the preflight.
        seconds: expected duration of each step; None for steps that take almost no time.
        enriched: what would be made from the request's rows.
        basis: how the durations were measured.
    """

    preflight: Preflight
    seconds: Mapping[str, float | None]
    enriched: Enriched
    basis: str = "three trial steps and eight answers; the audit's share is rough"

    def as_json(self) -> dict[str, Any]:
        """Return the object that `vgid forget --dry-run --json` prints (schema `vgid.plan/1`)."""
        return {
            "schema": "vgid.plan/1",
            "seconds": dict(self.seconds),
            "basis": self.basis,
            "enrichment": self.enriched.as_json(),
            "preflight": as_json(self.preflight, texts=False),
        }


def estimate_run(options: ForgetOptions, *, stages: Stages) -> RunEstimate:
    """Read everything, run the preflight, and time a few trial steps; no step is timed where the preflight finds an error.

    Args:
        options: what would be done.
        stages: shows and times what is done.

    Returns:
        The preflight, and the expected seconds of each step.

    Raises:
        VgidError: something that the options name is missing or cannot be read.
    """
    run = resolve_run(options)
    started = time.monotonic()
    made = Enriched() if set(options.without) == set(KINDS) else enriched(run, load_model(run.model))[0]
    asking, rows = time.monotonic() - started, [*run.request.rows, *made.facts]
    if not rows:
        raise ModelError("the request states no facts, and the model says none steadily", where=options.request, fix="add rows to it")
    started = time.monotonic()
    found = preflight(
        str(run.model),
        rows,
        options.retain,
        run.config,
        max_rows=options.max_rows,
        allow_unknown=options.allow_unknown,
        show_forgotten=options.show_forgotten,
        stages=stages,
    )
    seconds: dict[str, float | None] = dict.fromkeys(STEPS)
    seconds |= {"enrich": asking, "preflight": time.monotonic() - started}
    if not found.errors:
        seconds |= _measure(run, rows, made)
    return RunEstimate(found, seconds, made)


def _measure(run: ResolvedRun, rows: Sequence[Example], made: Enriched) -> dict[str, float | None]:
    options, config = run.options, run.config
    forget = sample_rows(rows, TRIAL_ROWS, config.seed)
    loaded = load_model(run.model)
    few = config.model_copy(update={"neutral_retain": TRIAL_ROWS})
    retain = run.read_retain(TRIAL_ROWS) if options.retain else neutral_retain(loaded, forget, few)
    started = time.monotonic()
    evaluate(loaded, {"forget": forget})
    answer = (time.monotonic() - started) / len(forget)
    steps = count_steps(config.training, len(rows) + len(made.forget) + len(run.anchor_rows), 0)
    # Forget and retain rows are asked: in the evaluation as many as `max_rows` each, in the audit as many as the profile says.
    asked = 2 * (options.max_rows or EXAMINED)
    attacked = 2 * options.max_rows if options.max_rows else sum(PROFILE_ROWS[options.profile])
    per_row = answer * len(run.policy.attacks) * ANSWERS_PER_ATTACK * (FULL_PROFILE if options.profile == "full" else 1)
    models = 3 if run.reference else 2
    earlier = [each for each in run.previous.deletions if each.rows and each.base_folder.is_dir()]
    return {
        "neutral rows": None if options.retain else answer * config.neutral_retain,
        "unlearn": _training_seconds(run, forget, retain, steps),
        "evaluate": answer * asked * models,
        "audit": attacked * per_row * models,
        "audit earlier requests": attacked * per_row * 2 * len(earlier) if earlier else None,
    }


def _training_seconds(run: ResolvedRun, forget: Sequence[Example], retain: Sequence[Example], steps: int) -> float:
    """Return the seconds of a number of training steps, or of an edit of the weights, which takes none."""
    training = run.config.training.model_copy(update={"steps": TRIAL_STEPS, "report_to": ()})
    validation = run.config.validation.model_copy(update={"every": 0})
    config: RunConfig = run.config.model_copy(update={"training": training, "validation": validation})
    loaded = load_model(run.model, quantise=config.adapter.quantise if config.adapter else None)
    ends: list[float] = []
    started = time.monotonic()
    fit(loaded, forget, retain, config, progress=lambda *_: ends.append(time.monotonic()))
    if not ends:
        return time.monotonic() - started
    return steps * (ends[-1] - ends[0]) / (len(ends) - 1)
