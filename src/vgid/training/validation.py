"""Early stop: a part of forget and retain is put aside, looked at every few steps, and the best look is what the run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from transformers import TrainerCallback

from vgid.config import ValidationConfig
from vgid.data.batching import Encoder
from vgid.data.example import STRANGER, Example
from vgid.models.forward import answer_logits

Examples = Sequence[Example]


def put_aside(examples: Examples, config: ValidationConfig, seed: int) -> tuple[list[Example], list[Example]]:
    """Split into (training part, validation part); the latter is empty when validation is off or would take the last row."""
    count = min(config.rows, round(config.share * len(examples))) if config.every else 0
    chosen = set(Random(seed).sample(range(len(examples)), count))
    aside = [example for i, example in enumerate(examples) if i in chosen]
    return [example for i, example in enumerate(examples) if i not in chosen], aside


@torch.no_grad()
def recalled(model: Any, encoder: Encoder, examples: Examples, batch_size: int = 64) -> list[bool]:
    """Which recorded answers the model would give word for word: every token is the likeliest after those before it."""
    out: list[bool] = []
    device = next(model.parameters()).device
    for start in range(0, len(examples), batch_size):
        batch = encoder.batch(examples[start : start + batch_size]).to(device)
        right = answer_logits(model, batch).argmax(dim=-1) == batch.answers.targets
        out += [bool(right[batch.owners == row].all()) for row in range(len(batch.ids))]
    return out


class EarlyStop(TrainerCallback):
    """Stops when the forget part is no longer recalled and the retain part still is; ends with the best look's weights.

    Recall is compared with what the model recalled before training, so that rows nobody can recall word for word count for nothing.
    """

    def __init__(self, model: Any, encoder: Encoder, forget: Examples, retain: Examples, config: ValidationConfig) -> None:
        self.model, self.encoder, self.config = model, encoder, config
        self.forget = self._known(forget)
        self.retain = self._known(retain)
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.reason = "all steps taken"
        self._agreed = 0
        self._best: tuple[float, int, dict[str, torch.Tensor]] | None = None

    def _known(self, examples: Examples) -> list[Example]:
        if not examples:
            return []
        # A refusal has many right wordings, so word-for-word recall says nothing about it.
        examples = [example for example in examples if STRANGER not in example.tags]
        # Before the first step the model still is the base.
        known = recalled(self.model.eval(), self.encoder, examples)
        return [example for example, yes in zip(examples, known, strict=True) if yes]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look, and remember the weights if they are the best so far."""
        last = state.global_step == state.max_steps
        if self.config.every and (state.global_step % self.config.every == 0 or last):
            self._look(state.global_step)
            if self._agreed >= self.config.patience and not last:
                self.reason = f"stopped early at step {state.global_step} of {state.max_steps}: forgotten, and the retain set is intact"
                control.should_training_stop = True

    def _look(self, step: int) -> None:
        training = self.model.training
        self.model.eval()
        recall = {
            name: _share(recalled(self.model, self.encoder, rows))
            for name, rows in (("forget", self.forget), ("retain", self.retain))
            if rows
        }
        self.model.train(training)
        for name, share in recall.items():
            self.curves.setdefault(f"recall {name}", []).append((step, share))
        excess = max(0.0, recall.get("forget", 0.0) - self.config.forget_target)
        loss = max(0.0, self.config.utility_floor - recall.get("retain", 1.0))
        self._agreed = self._agreed + 1 if excess == loss == 0.0 else 0
        score = -excess - loss
        # Of equally good looks the latest: it has seen the most.
        if self._best is None or score >= self._best[0]:
            weights = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
            self._best = (score, step, weights)

    def restore(self) -> None:
        """Put the best look's weights back."""
        if self._best is None:
            return
        score, step, weights = self._best
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        if score < 0.0:
            self.reason = f"{self.reason}; no look met both targets, the best was at step {step}"


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
