"""Score how likely a model finds the recorded answers (teacher forcing)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional as F

from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.evaluation.inference import OnBatch, by_length, frozen
from vgid.memory import as_many_as_fit
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import find_style

QUESTIONS = 16
"""Largest number of questions about one picture that share a row with their answers; chosen by hand."""


class AnswerScore(NamedTuple):
    """How likely a model finds one answer.

    Attributes:
        loss: mean negative log-likelihood of the answer's tokens, in nats.
        tokens: number of the answer's tokens, end of turn included.
    """

    loss: float
    tokens: int


def score(loaded: LoadedModel, examples: Sequence[Example], batch_size: int = 64, *, on_batch: OnBatch | None = None) -> list[AnswerScore]:
    """Score the recorded answer of every example. The model is left as it was.

    Args:
        loaded: the model.
        examples: questions with their answers.
        batch_size: number of examples in a batch; batches that do not fit into memory are halved.
        on_batch: called after every batch with the number of its examples.

    Returns:
        One score for each example, in their order.

    Raises:
        ConfigError: `batch_size` is not positive.
    """
    scores = [AnswerScore(0.0, 0)] * len(examples)
    with frozen(loaded.model):
        style = find_style(loaded.model, loaded.encoder, examples, QUESTIONS)
        for indices in by_length(examples, batch_size, style):
            for index, each in zip(indices, as_many_as_fit(partial(_score, loaded, style), [examples[i] for i in indices]), strict=True):
                scores[index] = each
            if on_batch is not None:
                on_batch(len(indices))
    return scores


def _score(loaded: LoadedModel, style: Style | None, examples: Sequence[Example]) -> list[AnswerScore]:
    batch = loaded.encoder.batch(examples, packing=style).to(loaded.model.device)
    logits = answer_logits(loaded.model, batch)  # [n, v]
    nll = F.cross_entropy(logits.float(), batch.answers.targets, reduction="none").double()  # [n]
    counts = torch.bincount(batch.owners, minlength=len(examples))  # [b]
    sums = torch.zeros(len(examples), dtype=nll.dtype, device=nll.device).index_add(0, batch.owners, nll)
    return [AnswerScore(loss, count) for loss, count in zip((sums / counts).tolist(), counts.tolist(), strict=True)]
