"""Shared by attacks that need probabilities: the loss of every token, and answers with another value in place of the true one.

Shapes: n answer tokens of a batch, v vocabulary, t tokens of one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vgid.data.example import Example
from vgid.evaluation.inference import by_length, frozen
from vgid.evaluation.metrics import normalise
from vgid.models.forward import answer_logits
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import find_style

ANSWERS = 16
"""Largest number of answers to one question that share a packed row."""


class TokenLosses(NamedTuple):
    """The scores of one recorded answer, token by token.

    Attributes:
        tokens: token ids `[t]`.
        losses: negative log-likelihoods `[t]`, in nats.
        surprise: `(log p - mean) / standard deviation`, `[t]`: mean and deviation of log p over the vocabulary, under the model's own
            distribution (Min-K++, arXiv 2404.02936).
        likeliest: bool `[t]`, whether each token is the likeliest one, given the question and the tokens before it.
    """

    tokens: Tensor
    losses: Tensor
    surprise: Tensor
    likeliest: Tensor


def token_losses(loaded: LoadedModel, examples: Sequence[Example], batch_size: int = 64) -> list[TokenLosses]:
    """Score every token of every recorded answer, the end of the turn included. The model is left unchanged.

    Args:
        loaded: the model.
        examples: questions with their answers.
        batch_size: number of examples in a forward pass.

    Returns:
        The scores of each example, in the order given.
    """
    out: list[TokenLosses | None] = [None] * len(examples)
    with frozen(loaded.model):
        style = find_style(loaded.model, loaded.encoder, examples, ANSWERS)
        for places in by_length(examples, batch_size, style):
            batch = loaded.encoder.batch([examples[place] for place in places], packing=style).to(loaded.model.device)
            logs = F.log_softmax(answer_logits(loaded.model, batch).float(), -1)  # [n, v]
            targets = batch.answers.targets
            own = logs.gather(1, targets[:, None])[:, 0]
            mean = (logs.exp() * logs).sum(1)
            deviation = ((logs.exp() * logs.square()).sum(1) - mean.square()).clamp_min(1e-12).sqrt()
            columns = [column.cpu() for column in (targets, -own, (own - mean) / deviation, logs.argmax(1) == targets)]
            for number, place in enumerate(places):
                mine = batch.owners.cpu() == number
                out[place] = TokenLosses(*(column[mine] for column in columns))
    return [each for each in out if each is not None]


def alternatives(row: Example, peers: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Make plausible wrong answers to a question out of the rows about other people.

    Args:
        row: the row.
        peers: rows about other people that ask for the same kind of fact.
        count: largest number of wrong answers.
        seed: seed of the choice, which also depends on the row.

    Returns:
        The row with other answers: its own answer with the keyword replaced by that of a peer; where it has no single keyword in its
        answer, the answers of peers.
    """
    value = row.keywords[0] if len(row.keywords) == 1 and row.keywords[0] in row.answer else None
    if value is not None:
        values = {normalise(e.keywords[0]): e.keywords[0] for e in peers if len(e.keywords) == 1}
        answers = {key: row.answer.replace(value, other) for key, other in values.items() if key != normalise(value)}
    else:
        answers = {normalise(e.answer): e.answer for e in peers if normalise(e.answer) != normalise(row.answer)}
    keys = sorted(answers)
    Random(f"{seed}/{row.id}").shuffle(keys)
    return [replace(row, answer=answers[key]) for key in keys[:count]]


def value_loss(group: Sequence[TokenLosses]) -> list[float]:
    """The mean loss of each answer over the tokens in which the answers of a group differ, in nats."""
    spans = value_spans([each.tokens.tolist() for each in group])
    return [float(each.losses[start:stop].mean()) for each, (start, stop) in zip(group, spans, strict=True)]


def value_spans(texts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Find where token sequences differ, leaving out their common beginning and end.

    Returns:
        Start and stop for each sequence; at least one token lies between them.
    """
    start, end = _common(texts), _common([text[::-1] for text in texts])
    shortest = min(len(text) for text in texts)
    start = min(start, shortest - 1)
    end = min(end, shortest - 1 - start)
    return [(start, len(text) - end) for text in texts]


def rank_of_first(losses: Sequence[float]) -> int:
    """The rank of the first loss among all, 1 for the lowest; ties count against it."""
    return 1 + sum(loss <= losses[0] for loss in losses[1:])


def beaten(losses: Sequence[float]) -> list[float]:
    """For each loss the share of the others, in [0, 1], that are higher; ties count half. A value that is not known has 1/2 on average."""
    array = torch.tensor(list(losses), dtype=torch.float64)
    above = (array[None] > array[:, None]).sum(1) + 0.5 * ((array[None] == array[:, None]).sum(1) - 1)
    return [float(each) for each in above / max(1, len(losses) - 1)]


def _common(texts: Sequence[Sequence[int]]) -> int:
    """The number of tokens with which all sequences start."""
    count = 0
    for column in zip(*texts, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def grouped(loaded: LoadedModel, groups: Sequence[Sequence[Example]], batch_size: int) -> list[list[TokenLosses]]:
    """Score groups of examples together.

    Args:
        loaded: the model.
        groups: groups of examples, for instance a row and its alternatives.
        batch_size: number of examples in a forward pass.

    Returns:
        The scores of each example, in the same groups.
    """
    scored = iter(token_losses(loaded, [example for group in groups for example in group], batch_size) if groups else [])
    return [[next(scored) for _ in group] for group in groups]


def mean_loss(each: TokenLosses) -> float:
    """The mean loss over an answer's tokens, in nats."""
    return float(torch.mean(each.losses))
