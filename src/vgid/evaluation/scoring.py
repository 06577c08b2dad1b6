"""Score how likely a model finds the recorded answers (teacher forcing)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional as F

from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.evaluation.inference import OnBatch, by_length, end_tokens, frozen
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
        said: the answer's tokens up to the one that ends a text, where each is the likeliest after those before it: then the model gives
            this answer when it is asked. None where it gives another one, or nothing ends the answer.
    """

    loss: float
    tokens: int
    said: tuple[int, ...] | None


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
    scores = [AnswerScore(0.0, 0, None)] * len(examples)
    ends = end_tokens(loaded)
    with frozen(loaded.model):
        style = find_style(loaded.model, loaded.encoder, examples, QUESTIONS)
        for indices in by_length(examples, batch_size, style):
            found = as_many_as_fit(partial(_score, loaded, style, ends), [examples[i] for i in indices])
            for index, each in zip(indices, found, strict=True):
                scores[index] = each
            if on_batch is not None:
                on_batch(len(indices))
    return scores


def _score(loaded: LoadedModel, style: Style | None, ends: Collection[int], examples: Sequence[Example]) -> list[AnswerScore]:
    batch = loaded.encoder.batch(examples, packing=style).to(loaded.model.device)
    logits, targets = answer_logits(loaded.model, batch), batch.answers.targets  # [n, v], [n]
    nll = F.cross_entropy(logits.float(), targets, reduction="none").double()  # [n]
    counts = torch.bincount(batch.owners, minlength=len(examples))  # [b]
    sums = torch.zeros(len(examples), dtype=nll.dtype, device=nll.device).index_add(0, batch.owners, nll)
    tokens: list[list[tuple[int, bool]]] = [[] for _ in examples]
    for owner, token, likeliest in zip(batch.owners.tolist(), targets.tolist(), (logits.argmax(dim=-1) == targets).tolist(), strict=True):
        tokens[owner].append((token, likeliest))
    said = [_said(each, ends) for each in tokens]
    return [AnswerScore(*each) for each in zip((sums / counts).tolist(), counts.tolist(), said, strict=True)]


def _said(tokens: Sequence[tuple[int, bool]], ends: Collection[int]) -> tuple[int, ...] | None:
    """Tokens up to the first that ends a text; None without one, or where one of them is not the likeliest."""
    out = []
    for token, likeliest in tokens:
        if not likeliest:
            return None
        out.append(token)
        if token in ends:
            return tuple(out)
    return None
