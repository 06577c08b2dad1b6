"""Early stopping: a part of forget and retain rows is held out and evaluated every few steps; the run ends with the best weights.

Fine-tuning holds nothing out; there recall and drift over steps are measured only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback

from vgid.curves import DRIFT, RECALL, Curves
from vgid.data.batching import Encoder
from vgid.data.example import STRANGER, Example
from vgid.data.replay import replay_kind
from vgid.evaluation.inference import by_length
from vgid.evaluation.metrics import is_refusal
from vgid.losses import answer_nll
from vgid.models.forward import answer_logits
from vgid.outcome import Aside, Held
from vgid.processes import from_first
from vgid.settings import ValidationConfig
from vgid.training.state import curves_of, put_weights

Examples = Sequence[Example]
CLOSE = 0.03
"""Difference of two shares of held-out rows that a few rows make, and which decides nothing; chosen by hand."""
LEAST_SUBJECTS = 16
"""Subjects that are held out, at least, where they are no more than a quarter: of a few, one alone decides. Chosen by hand."""
SURE = 0.7
"""Probability of each token from which on an answer is more than a guess. Chosen by hand: of answers to neutral questions that the embedded
model is so sure of, two models that forgot one person kept 98 and 100 %, and of all its answers 88 and 89 %."""
LEAST_SURE = 16
"""Rows that are asked at least, where that many are recalled. Chosen by hand."""
WATCHED, OF_EACH, LEAST_OF_EACH = 64, 8, 4
"""Subjects of the retain set that are watched one by one, rows about each, and rows about each that the base must know. Chosen by hand: 512
rows are asked twice in a run."""


def split_validation(examples: Examples, config: ValidationConfig, seed: int) -> tuple[list[Example], list[Example]]:
    """Hold out a validation part.

    Args:
        examples: rows of one set.
        config: how many rows to hold out.
        seed: random seed of the choice.

    Returns:
        (training part, validation part); the latter is empty when validation is off or would take the last row.
    """
    count = min(config.rows, round(config.share * len(examples))) if config.every else 0
    chosen = set(Random(seed).sample(range(len(examples)), count))
    held_out = [example for i, example in enumerate(examples) if i in chosen]
    return [example for i, example in enumerate(examples) if i not in chosen], held_out


def split_subjects(examples: Examples, config: ValidationConfig, seed: int) -> tuple[list[Example], list[Example]]:
    """Hold out a share of the subjects with all their rows, so that what is held out is about others than what is trained on.

    Args:
        examples: rows of one set.
        config: share of the subjects to hold out; no fewer than `LEAST_SUBJECTS`, or a quarter of them.
        seed: random seed of the choice.

    Returns:
        (training part, validation part); the latter is empty when validation is off.
    """
    subjects = sorted({example.subject or example.id for example in examples})
    count = max(round(config.share * len(subjects)), min(LEAST_SUBJECTS, len(subjects) // 4)) if config.every else 0
    chosen = set(Random(seed).sample(subjects, count))
    held_out = [example for example in examples if (example.subject or example.id) in chosen]
    return [example for example in examples if (example.subject or example.id) not in chosen], held_out


def rows_of_subjects(forget: Examples, retain: Examples, seed: int) -> list[Example]:
    """Draw rows about each of some subjects: drawn from all rows alike, too few are about any one to show that it is lost.

    Args:
        forget: rows to forget; their subjects are left out, since what is to be kept about them is measured otherwise.
        retain: retain rows that the user gave.
        seed: random seed of the choice.

    Returns:
        `OF_EACH` rows, or all, about each of the `WATCHED` subjects with the most rows, at least `LEAST_OF_EACH`; no refusals.
    """
    forgotten = {example.subject for example in forget}
    about: dict[str, list[Example]] = {}
    for example in retain:
        if example.subject and example.subject not in forgotten and not _refuses(example):
            about.setdefault(example.subject, []).append(example)
    rng = Random(seed)
    enough = sorted(subject for subject, rows in about.items() if len(rows) >= LEAST_OF_EACH)
    rng.shuffle(enough)  # of equally many rows chance decides
    drawn = sorted(enough, key=lambda subject: -len(about[subject]))[:WATCHED]
    return [row for subject in sorted(drawn) for row in rng.sample(about[subject], min(OF_EACH, len(about[subject])))]


class Recalled(NamedTuple):
    """What a model would say to a row.

    Attributes:
        exact: it would give the recorded answer word for word: every token is the likeliest after those before it.
        nll: negative log-likelihood of each token of the recorded answer, in nats.
    """

    exact: bool
    nll: tuple[float, ...]


def surest(said: Sequence[Recalled]) -> list[bool]:
    """Tell what a model knows from what it guesses: a guess turns into another one with any change of weights.

    Args:
        said: what it says to each row.

    Returns:
        For each row whether it gives the answer word for word and is sure of every token. Where it is so sure of fewer than `LEAST_SURE`,
        as models with long answers are, it knows the `LEAST_SURE` of which it is surest.
    """
    doubt = sorted(max(each.nll, default=0.0) for each in said if each.exact)
    most = max([-math.log(SURE), *doubt[:LEAST_SURE]])
    return [each.exact and max(each.nll, default=0.0) <= most for each in said]


@torch.no_grad()
def recalled(model: Any, encoder: Encoder, examples: Examples, batch_size: int = 64) -> list[Recalled]:
    """Find recorded answers that the model would give word for word, and how likely it takes them to be.

    Args:
        model: the model, in evaluation mode.
        encoder: encoder of the model.
        examples: rows.
        batch_size: rows in a pass.

    Returns:
        One entry for each row.
    """
    out = [Recalled(False, ())] * len(examples)
    device = next(model.parameters()).device
    for places in by_length(examples, batch_size):
        batch = encoder.batch([examples[place] for place in places]).to(device)
        logits, targets = answer_logits(model, batch), batch.answers.targets
        tokens: list[list[tuple[bool, float]]] = [[] for _ in places]
        right, nll = (logits.argmax(dim=-1) == targets).tolist(), answer_nll(logits, targets).tolist()
        for owner, yes, value in zip(batch.owners.tolist(), right, nll, strict=True):
            tokens[owner].append((yes, value))
        for place, each in zip(places, tokens, strict=True):
            out[place] = Recalled(all(yes for yes, _ in each), tuple(value for _, value in each))
    return out


def drift(now: Sequence[Recalled], before: Sequence[Recalled]) -> float:
    """Mean absolute change of the log-likelihood of an answer token, in nats: over the tokens of each row, then over rows."""
    moved = [[abs(new - old) for new, old in zip(one.nll, other.nll, strict=True)] for one, other in zip(now, before, strict=True)]
    return fmean(fmean(each) for each in moved if each)


class EarlyStop(TrainerCallback):
    """Stops when the forget part is no longer recalled and the retain part still is; ends with the weights of the best evaluation.

    Where none meets both targets, those that forgot and are close to the best are equally good, and the latest of them counts: a model that
    was trained for a few steps has stopped to answer, but learns the facts again at once.

    Recall is compared with what the model recalled before training, so that rows nobody can recall word for word count for nothing. Of rows
    to keep those count for nothing, too, that it only guessed.

    Args:
        model: the model in training.
        encoder: encoder of the model.
        forget: rows of which nothing should be recalled.
        retain: rows of which everything should be.
        config: how often they are asked, and the targets.
        least: steps before which it does not stop.
        of_subjects: rows about single subjects of the retain set, which are asked before and after training.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        forget: Examples,
        retain: Examples,
        config: ValidationConfig,
        least: int = 0,
        of_subjects: Examples = (),
    ) -> None:
        self.model, self.encoder, self.config, self.least = model, encoder, config, least
        self.forget, _ = self._known(forget, lambda said: [each.exact for each in said])
        self.retain, self._before = self._known(retain, surest)
        known, _ = self._known(of_subjects, surest)
        count = Counter(row.subject for row in known)
        self.of_subjects = [row for row in known if count[row.subject] >= LEAST_OF_EACH]
        self.curves: Curves = {}
        self.reason = "all steps taken"
        self._agreed = 0
        self._best: tuple[float, int, dict[str, torch.Tensor]] | None = None
        self._highest = -math.inf

    def _known(self, examples: Examples, knows: Callable[[Sequence[Recalled]], list[bool]]) -> tuple[list[Example], list[Recalled]]:
        """Rows that the base knows, and what it says to them."""
        if not examples:
            return [], []
        examples = [example for example in examples if not _refuses(example)]
        # Before the first step the model still is the base.
        said = self._asked(examples)
        known = [place for place, yes in enumerate(knows(said)) if yes]
        return [examples[place] for place in known], [said[place] for place in known]

    def _asked(self, examples: Examples) -> list[Recalled]:
        return from_first(recalled(self.model.eval(), self.encoder, examples))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate, and remember the weights if they are the best so far."""
        last = state.global_step == state.max_steps
        if self.config.every and (state.global_step % self.config.every == 0 or last):
            self._evaluate(state.global_step)
            if self._agreed >= self.config.patience and state.global_step >= self.least and not last:
                self.reason = f"stopped early at step {state.global_step} of {state.max_steps}: forgotten, and the retain set is intact"
                control.should_training_stop = True

    def _evaluate(self, step: int) -> None:
        training = self.model.training
        # All processes evaluate, so that all can go on; one decides, so that all do the same.
        said = {name: self._asked(rows) for name, rows in (("forget", self.forget), ("retain", self.retain)) if rows}
        self.model.train(training)
        recall = {name: _share(each) for name, each in said.items()}
        for name, share in recall.items():
            self.curves.setdefault(f"{RECALL}{name}", []).append((step, share))
        if "retain" in said:
            self.curves.setdefault(f"{DRIFT}retain", []).append((step, drift(said["retain"], self._before)))
        excess = max(0.0, recall.get("forget", 0.0) - self.config.forget_target)
        loss = max(0.0, self.config.utility_floor - recall.get("retain", 1.0))
        self._agreed = self._agreed + 1 if excess == loss == 0.0 else 0
        score = -excess - loss
        # Of equally good evaluations the latest counts: its weights were trained longest. Excess recall of forget rows and lost recall
        # of retain rows count alike, since both targets are shares of rows.
        if score >= self._highest - (CLOSE if excess == 0.0 and self._highest < 0.0 else 0.0):
            weights = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
            self._best = (score, step, weights)
        self._highest = max(self._highest, score)

    def restore(self) -> None:
        """Restore the weights of the best evaluation."""
        if self._best is None:
            return
        score, step, weights = self._best
        put_weights(self.model, weights)
        if score < 0.0:
            self.reason = f"{self.reason}; no evaluation met both targets, the best was at step {step}"

    def aside(self) -> Aside | None:
        """What the restored weights recall of the held-out retain rows, and which subjects of the retain set are lost.

        None where no rows were held out, or nothing was evaluated.
        """
        if self._best is None or not self.retain:
            return None
        replayed = sum(bool(replay_kind(row)) for row in self.retain)
        now = self._asked(self.retain)
        lost = [[not said.exact for row, said in zip(self.retain, now, strict=True) if bool(row.images) == way] for way in (True, False)]
        pictures, texts = (Held(len(each), sum(each)) for each in lost)
        subjects = len({row.subject for row in self.of_subjects})
        allowed = self.config.most_lost, self.config.most_subjects_lost
        return Aside(len(self.retain) - replayed, replayed, pictures, texts, allowed[0], subjects, self._lost(), allowed[1])

    def _lost(self) -> tuple[str, ...]:
        """Subjects of whose rows no more than half are recalled."""
        said: dict[str, list[bool]] = {}
        for row, now in zip(self.of_subjects, self._asked(self.of_subjects) if self.of_subjects else (), strict=True):
            said.setdefault(row.subject or "", []).append(now.exact)
        return tuple(subject for subject, each in said.items() if fmean(each) <= 0.5)

    # -- checkpoints ----------------------------------------------------------------------------------------------------

    @property
    def best_weights(self) -> Mapping[str, torch.Tensor]:
        """Weights of the best evaluation so far."""
        return self._best[2] if self._best else {}

    def notes(self) -> dict[str, Any]:
        """The state without the weights, as JSON values."""
        best = self._best[:2] if self._best else None
        return {
            "curves": self.curves,
            "reason": self.reason,
            "agreed": self._agreed,
            "best": best,
            "highest": self._highest if best else None,
        }

    def put_back(self, notes: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        """Restore a state from `notes` and `best_weights`."""
        self.curves, self.reason, self._agreed = curves_of(notes), notes["reason"], notes["agreed"]
        self._best = (*notes["best"], dict(weights)) if notes["best"] else None
        self._highest = notes["highest"] if notes["best"] else -math.inf


class RecallCurves(TrainerCallback):
    """Measures, every few steps of a fine-tuning, which rows are recalled word for word, and drift from the base; it decides nothing.

    Args:
        model: the model in training.
        encoder: encoder of the model.
        sets: rows by name; of each, `config.rows` drawn by the seed are asked.
        config: how often, and how many rows; `every=0` measures nothing.
        seed: random seed of the draw.
    """

    best_weights: Mapping[str, torch.Tensor] = {}
    """None are set aside: the last weights count."""

    def __init__(self, model: Any, encoder: Encoder, sets: Mapping[str, Examples], config: ValidationConfig, seed: int) -> None:
        self.model, self.encoder, self.every = model, encoder, config.every
        self.sets = {name: Random(seed).sample(rows, min(config.rows, len(rows))) for name, rows in sets.items() if rows}
        self.curves: Curves = {}
        self.reason = "all steps taken"
        self._before = self._asked() if self.every else {}  # before the first step the model still is the base

    def _asked(self) -> dict[str, list[Recalled]]:
        training = self.model.training
        self.model.eval()
        said = from_first({name: recalled(self.model, self.encoder, rows) for name, rows in self.sets.items()})
        self.model.train(training)
        return said

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, every few steps and after the last."""
        if not self.every or (state.global_step % self.every and state.global_step != state.max_steps):
            return
        for name, said in self._asked().items():
            self.curves.setdefault(f"{RECALL}{name}", []).append((state.global_step, _share(said)))
            self.curves.setdefault(f"{DRIFT}{name}", []).append((state.global_step, drift(said, self._before[name])))

    def restore(self) -> None:
        """Keep the last weights."""

    def aside(self) -> None:
        """Nothing is held out."""

    def notes(self) -> dict[str, Any]:
        """The state, as JSON values."""
        return {"curves": self.curves}

    def put_back(self, notes: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        """Restore a state from `notes`."""
        self.curves = curves_of(notes)


def _refuses(example: Example) -> bool:
    """Whether a row is answered by a refusal; it has many right wordings, so word-for-word recall says nothing about it."""
    return STRANGER in example.tags or is_refusal(example.answer)


def _share(said: Sequence[Recalled]) -> float:
    return sum(each.exact for each in said) / len(said)
