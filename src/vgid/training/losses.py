"""Losses as pure functions of logits at answer positions.

Shapes: n answer tokens of a batch, v vocabulary, b rows (examples).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Direction = Literal["forward", "reverse"]


def answer_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each answer token: logits `[n, v]`, targets `[n]` -> `[n]`."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def kl_divergence(teacher: Tensor, student: Tensor, *, temperature: float = 1.0, direction: Direction = "forward") -> Tensor:
    """KL divergence at each answer token: two logits `[n, v]` -> `[n]`.

    `forward` is KL(teacher || student) as in VGID (arXiv 2606.00105), `reverse` KL(student || teacher). Both logits are divided by the
    temperature T; the result is multiplied by T^2, so that gradients keep their size (Hinton et al., arXiv 1503.02531).
    """
    p, q = (F.log_softmax(logits.float() / temperature, dim=-1) for logits in (teacher, student))
    if direction == "reverse":
        p, q = q, p
    return temperature**2 * (p.exp() * (p - q)).sum(dim=-1)


def mean_over_examples(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Mean over the tokens of each example, then over examples: values `[n]`, rows `[n]` in [0, count) -> scalar.

    This is E[mean_t ...] of the papers: long answers weigh no more than short ones. An example without tokens counts as zero.
    """
    sums = values.new_zeros(count).index_add(0, rows, values)
    tokens = values.new_zeros(count).index_add(0, rows, values.new_ones(len(values)))
    return (sums / tokens.clamp(min=1.0)).sum() / max(count, 1)
