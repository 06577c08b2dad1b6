"""Losses as pure functions of logits at answer positions.

Shapes: n answer tokens of a batch, v vocabulary, b rows (examples).
"""

from __future__ import annotations

from typing import Literal

import torch
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


def sum_over_examples(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Sum over the tokens of each example: values `[n]`, owners `[n]` in [0, count) -> `[count]`."""
    return values.new_zeros(count).index_add(0, owners, values)


def npo(log_p: Tensor, log_p0: Tensor, beta: float) -> Tensor:
    r"""Negative preference optimisation (arXiv 2404.05868, equation 3), of answers' log-probabilities `[b]` -> `[b]`.

    .. math:: -\frac{2}{\beta} \log \sigma(-\beta (\log p(y) - \log p_0(y)))

    Its gradient is that of gradient ascent, weighted by 2 sigma(beta log p/p_0); with beta -> 0 the weight is 1.
    """
    return -2.0 / beta * F.logsigmoid(-beta * (log_p - log_p0))


def simnpo(mean_log_p: Tensor, beta: float, margin: float) -> Tensor:
    r"""SimNPO (arXiv 2410.07163, equation 4): no reference, log-probabilities `[b]` averaged over the answer's tokens -> `[b]`.

    .. math:: -\frac{2}{\beta} \log \sigma(-\frac{\beta}{|y|} \log p(y) - \gamma)
    """
    return -2.0 / beta * F.logsigmoid(-beta * mean_log_p - margin)


def dpo(chosen: Tensor, chosen0: Tensor, rejected: Tensor, rejected0: Tensor, beta: float) -> Tensor:
    r"""Direct preference optimisation (arXiv 2305.18290, equation 7), of answers' log-probabilities `[b]` -> `[b]`.

    .. math:: -\log \sigma(\beta [\log p/p_0 (chosen) - \log p/p_0 (rejected)])
    """
    return -F.logsigmoid(beta * ((chosen - chosen0) - (rejected - rejected0)))


def undial(base: Tensor, logits: Tensor, targets: Tensor, strength: float) -> Tensor:
    r"""UNDIAL (arXiv 2402.10052, equation 3): cross-entropy to the base with the answer's token held down.

    .. math:: CE(softmax(z_0 - \gamma 1[v = y_t]), p)

    Base logits and logits `[n, v]`, targets `[n]` -> `[n]`.
    """
    lowered = base.float().scatter_add(-1, targets[:, None], base.new_full((len(targets), 1), -strength, dtype=torch.float32))
    return -(F.softmax(lowered, dim=-1) * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1)


def misdirection(hidden: Tensor, target: Tensor) -> Tensor:
    """Squared distance of hidden states `[n, h]` from where they are to go, `[n, h]` or `[h]` -> `[n]` (RMU, arXiv 2403.03218)."""
    return (hidden.float() - target.float()).square().sum(dim=-1)
