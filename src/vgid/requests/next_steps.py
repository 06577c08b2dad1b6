"""What to do after a request that did not end in a pass: the first thing that its results point at, and then the others."""

from __future__ import annotations

from collections.abc import Iterator

from vgid.outcome import FAILED
from vgid.requests.record import Answered, Verification
from vgid.requests.resolved import ResolvedRun
from vgid.training.trainer import count_steps

LONGER = 3
"""Factor on the steps of a run that did not forget; chosen by hand."""


def next_steps(run: ResolvedRun, found: Verification, rate: float) -> list[str]:
    """Return what to do next; nothing where the request was forgotten and the audit passed.

    Args:
        run: what was asked for.
        found: the results of all tests.
        rate: the learning rate that was used.

    Returns:
        Sentences with settings or options to repeat the command with, in the order in which to try them.
    """
    passed = found.outcome.status not in FAILED and found.status == "pass"
    return [] if passed else list(_steps(run, found, rate))


def _steps(run: ResolvedRun, found: Verification, rate: float) -> Iterator[str]:
    if found.outcome.status == "kept facts lost":
        yield "Give her other facts more weight: more rows about them in the request or in --retain, or --set training.retain_ratio=8."
    elif found.outcome.status == "not forgotten":
        trains = run.config.method_class.trains
        steps = count_steps(run.config.training, len(run.training_rows), 0)
        if trains:
            name = "min_steps" if run.config.training.steps is None else "steps"
            yield "Go on from this result: vgid forget --continue RUN with the same request and retain set, into another --out."
            yield f"Or train for longer from the start: --set training.{name}={LONGER * steps}."
            yield f"Or raise the learning rate: --set training.learning_rate={LONGER * rate:g}."
        if run.options.without:
            yield "Let vgid make rows in other forms: leave --no-enrich and --without out."
        yield "Or add rows about the same facts to the request: other wordings, other pictures, questions by name."
    elif found.outcome.status == "damaged":
        yield f"Lower the learning rate: --set training.learning_rate={rate / 2:g}, into another --out."
        if run.options.retain is not None:
            yield "Or give more rows to keep with --retain, about other people above all."
        if found.outcome.subjects_lost:
            yield "A warning names the lost subjects of the retain set: give more rows about these, or --set training.retain_ratio=8."
    elif found.status == "inconclusive":
        yield "Add rows about the same facts to the request, so that the audit can decide: other wordings, pictures, questions by name."
    elif found.status == "fail":
        yield f"Look at the attacks that failed ({'; '.join(found.reasons)}), and add rows that ask as they do."
    if run.options.retain is None:
        yield "Give rows to keep with --retain, about other people above all: vgid data others makes some from bare pictures and names."


def still_answered(outcome: Answered) -> str:
    """Say in a sentence how much is still answered."""
    text = f"{outcome.still_answered or 0:.0%} of the {outcome.known} known rows are still answered"
    if outcome.held_out_answered is not None:
        text += f", and {outcome.held_out_answered:.0%} of {outcome.held_out_known} held-out rows about the same facts"
    text += f" (allowed: {outcome.allowed:.0%})"
    if outcome.kept_answered is not None:
        text += f"; of {outcome.kept_known} rows to keep, {outcome.kept_answered:.0%}"
    return f"{text}."
