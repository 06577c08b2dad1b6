"""Did a run forget? Of the forget rows that the base answered, the share that the unlearned model still answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, Literal, NamedTuple

from vgid.evaluation.evaluate import SplitResult

Status = Literal["forgotten", "not forgotten", "kept facts lost", "damaged", "not examined", "nothing known"]
STILL_ANSWERED = 0.05
"""Share of known forget rows that may still be answered: one in twenty. Guessing among the fictional people's values reaches this share at
most; an audit judges more finely."""
KEPT = 0.9
"""Share of a person's known facts outside a request's scope that must still be answered; chosen by hand."""
EACH_WAY = 8
"""Held-out rows with pictures, and without, from which on both count alike; chosen by hand."""
EXIT_CODE = 3
"""Exit code of a run that ended and did not forget, or lost too much else."""
FAILED: tuple[Status, ...] = ("not forgotten", "kept facts lost", "damaged")
"""What ends with this exit code."""
ADVICE = (
    "train for longer (--set training.min_steps=400), raise training.learning_rate, or add rows about the same facts: other wordings, "
    "other pictures, questions by name"
)
KEEP = (
    "give more retain rows, about other people above all (vgid data others makes some from bare pictures and names), lower "
    "training.learning_rate, or take fewer steps; --set validation.most_lost=… (or most_subjects_lost) allows more"
)


class Held(NamedTuple):
    """Held-out rows of one form.

    Attributes:
        asked: rows that the base recalled word for word and did not guess.
        lost: number of those that the model no longer recalls.
    """

    asked: int
    lost: int


@dataclass(frozen=True)
class Aside:
    """What is left of retain held-out rows, never trained on.

    Attributes:
        given: rows held out of those that the user gave, as far as the base recalled them.
        replayed: rows of the base's own answers, most of them probes (`vgid.data.probes`).
        pictures: all of them that have a picture.
        texts: all of them that have none.
        allowed_loss: share that may be lost.
        subjects: subjects of the retain set that were asked about one by one.
        subjects_lost: those of whose rows, as far as the base recalled them, it recalls no more than half.
        allowed_subjects: number that may be lost.
    """

    given: int
    replayed: int
    pictures: Held
    texts: Held
    allowed_loss: float
    subjects: int = 0
    subjects_lost: tuple[str, ...] = ()
    allowed_subjects: int = 0

    @property
    def lost(self) -> float:
        """Share that is lost: where there are `EACH_WAY` rows or more with pictures and without, the mean of both shares, since of the
        latter there are more of which a model is sure; of fewer, one row would decide."""
        ways = (self.pictures, self.texts)
        if min(held.asked for held in ways) < EACH_WAY:
            return sum(held.lost for held in ways) / sum(held.asked for held in ways)
        return fmean(held.lost / held.asked for held in ways)


@dataclass(frozen=True)
class Outcome:
    """What a run achieved on the rows that it was to forget, asked as they stand.

    Attributes:
        status: `forgotten`, `not forgotten` (too much of the forget rows or of the held-out ones is still answered), `kept facts lost`
            (forgotten, but so is too much outside the request's scope), `damaged` (forgotten, but more of what was held out is lost than
            allowed, or more subjects of the retain set), `not examined` (no rows were asked), or `nothing known` (the base answered none).
        known: forget rows that the base answered.
        still_answered: share of these that the unlearned model answers, in [0, 1]; None where nothing was examined or known.
        held_out_known: rows about the same facts, never trained on, that the base answered.
        held_out_answered: share of these that the unlearned model answers; None without.
        kept_known: rows about facts outside the request's scope that the base answered.
        kept_answered: share of these that the unlearned model answers; None without.
        allowed: share that may still be answered.
        retained: share of the retain rows answered by the base that the unlearned model answers; None without.
        aside_given: retain rows of the user, never trained on, that the base recalls word for word.
        aside_replayed: answers of the base, never trained on (`vgid.data.probes`).
        aside_pictures: rows of both with a picture.
        aside_pictures_lost: number of these that the unlearned model no longer recalls word for word.
        aside_texts: rows of both without a picture.
        aside_texts_lost: number of these that it no longer recalls.
        aside_lost: share of these that is lost, as a mean of rows with a picture and without where there are `EACH_WAY` or more of
            each; None without any.
        allowed_loss: share that may be lost.
        subjects: subjects of the retain set that were asked about one by one.
        subjects_lost: number of those of whose rows, known before, no more than half are recalled.
        allowed_subjects: number that may be lost.
        protected_by: number of rows that were trained on to keep other knowledge, by kind; `given` are the user's.
    """

    status: Status
    known: int = 0
    still_answered: float | None = None
    held_out_known: int = 0
    held_out_answered: float | None = None
    kept_known: int = 0
    kept_answered: float | None = None
    allowed: float = STILL_ANSWERED
    retained: float | None = None
    aside_given: int = 0
    aside_replayed: int = 0
    aside_pictures: int = 0
    aside_pictures_lost: int = 0
    aside_texts: int = 0
    aside_texts_lost: int = 0
    aside_lost: float | None = None
    allowed_loss: float | None = None
    subjects: int = 0
    subjects_lost: int = 0
    allowed_subjects: int = 0
    protected_by: Mapping[str, int] = field(default_factory=dict)

    @property
    def intact(self) -> bool:
        """Whether no more of what must stay is lost than allowed, as far as it was measured."""
        within = self.aside_lost is None or self.allowed_loss is None or self.aside_lost <= self.allowed_loss
        return within and self.subjects_lost <= self.allowed_subjects

    def as_json(self) -> dict[str, Any]:
        """Plain values for `results.json`."""
        return asdict(self)

    def __str__(self) -> str:
        if self.still_answered is None:
            return f"{self.status}: whether the model forgot is unknown"
        text = f"{self.status}: {self.still_answered:.0%} of {self.known} known forget rows are still answered"
        if self.held_out_answered is not None:
            text += f", and {self.held_out_answered:.0%} of {self.held_out_known} held-out rows about the same facts"
        if self.kept_answered is not None:
            text += f"; of {self.kept_known} rows to keep {self.kept_answered:.0%}"
        if self.aside_lost is not None:
            text += f"; lost: {what_is_lost(self.as_json())}"
        return f"{text}; {ADVICE}" if self.status == "not forgotten" else f"{text}; {KEEP}" if self.status == "damaged" else text


def outcome_of(scores: Mapping[str, Mapping[str, SplitResult]]) -> Outcome:
    """Compare the models before and after on the rows that both were asked.

    Args:
        scores: model (`base`, `unlearned`) to split to results. The splits `forget` (what was to be forgotten), `held_out` (rows about the
            same facts that were not trained on), `kept` (facts outside a request's scope) and `retain` are looked at.

    Returns:
        The outcome.
    """
    if not all("forget" in scores.get(model, {}) for model in ("base", "unlearned")):
        return Outcome("not examined")
    before, after = scores["base"], scores["unlearned"]
    left = {split: _still_right(before[split], after[split]) for split in before if split in after}
    known, share = left["forget"]
    more, share_of_more = left.get("held_out", (0, None))
    retained = left["retain"][1] if "retain" in left else None
    if share is None:
        return Outcome("nothing known", retained=retained)
    kept, share_kept = left.get("kept", (0, None))
    status: Status = "forgotten" if max(share, share_of_more or 0.0) <= STILL_ANSWERED else "not forgotten"
    if status == "forgotten" and share_kept is not None and share_kept < KEPT:
        status = "kept facts lost"
    return Outcome(status, known, share, more, share_of_more, kept, share_kept, retained=retained)


def what_is_lost(outcome: Mapping[str, Any]) -> str:
    """Say what a model lost beside what it was to forget, from the fields of an `Outcome`; those of older records lack some."""
    share, ways = outcome["aside_lost"] or 0.0, (("pictures", "about pictures"), ("texts", "without a picture"))
    counts = [
        f"{outcome[f'aside_{way}_lost']} of {outcome[f'aside_{way}']} answers {words}" for way, words in ways if outcome.get(f"aside_{way}")
    ]
    asked = outcome["aside_given"] + outcome["aside_replayed"]
    text = f"{' and '.join(counts) or f'{share * asked:.0f} of {asked} answers'} that were held out and never trained on"
    mean = f"{share:.1%} in all, " if len(counts) > 1 else ""
    text += f" ({mean}allowed: {outcome['allowed_loss'] or 0:.0%})"
    subjects = outcome.get("subjects_lost", 0)
    return f"{text}, and {subjects} of {outcome['subjects']} subjects of the retain set" if subjects else text


def with_protection(outcome: Outcome, protected_by: Mapping[str, int], aside: Aside | None) -> Outcome:
    """Add what protected other knowledge, and what is left of held-out rows.

    Args:
        outcome: what was asked.
        protected_by: number of retain rows by kind, "" for the user's.
        aside: what is left of held-out retain rows; None where there were none.

    Returns:
        The outcome; a model that forgot and lost more than allowed is `damaged`.
    """
    found = replace(outcome, protected_by={kind or "given": count for kind, count in protected_by.items()})
    if aside is None:
        return found
    found = replace(
        found,
        aside_given=aside.given,
        aside_replayed=aside.replayed,
        aside_pictures=aside.pictures.asked,
        aside_pictures_lost=aside.pictures.lost,
        aside_texts=aside.texts.asked,
        aside_texts_lost=aside.texts.lost,
        aside_lost=aside.lost,
        allowed_loss=aside.allowed_loss,
        subjects=aside.subjects,
        subjects_lost=len(aside.subjects_lost),
        allowed_subjects=aside.allowed_subjects,
    )
    return replace(found, status="damaged") if found.status == "forgotten" and not found.intact else found


def _still_right(before: SplitResult, after: SplitResult) -> tuple[int, float | None]:
    """Rows that the first model answered, and the share of these that the second one answers."""
    now = {item.example: item.accuracy for item in after.items}
    known = [now[item.example] for item in before.items if item.accuracy and item.example in now]
    return len(known), fmean(known) if known else None
