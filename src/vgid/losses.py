"""Losses as pure functions of logits at answer positions.

Shapes: n answer tokens of a batch, v vocabulary, b rows (examples).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Direction = Literal["forward", "reverse"]
"""Direction of a KL divergence: KL(teacher || student) or KL(student || teacher)."""


def answer_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the negative log-likelihood of each answer token, in nats: logits `[n, v]`, targets `[n]` -> `[n]`."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def kl_divergence(teacher: Tensor, student: Tensor, *, temperature: float = 1.0, direction: Direction = "forward") -> Tensor:
    """Compute the KL divergence at each answer token.

    Args:
        teacher: logits `[n, v]`.
        student: logits `[n, v]`.
        temperature: both logits are divided by it; the result is multiplied by its square, so that gradients keep their size (Hinton et
            al., arXiv 1503.02531).
        direction: `forward` for KL(teacher || student), as in VGID (arXiv 2606.00105), `reverse` for KL(student || teacher).

    Returns:
        `[n]`, in nats.
    """
    p, q = (F.log_softmax(logits.float() / temperature, dim=-1) for logits in (teacher, student))
    if direction == "reverse":
        p, q = q, p
    return temperature**2 * (p.exp() * (p - q)).sum(dim=-1)


def mean_over_examples(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Average over the tokens of each example, then over examples: E[mean_t ...] of the papers, in which long answers weigh no more.

    Args:
        values: `[n]`, one value for each answer token.
        rows: int64 `[n]`, the example of each token, in [0, count).
        count: number of examples; one without tokens counts as zero.

    Returns:
        A scalar.
    """
    sums = values.new_zeros(count).index_add(0, rows, values)
    tokens = values.new_zeros(count).index_add(0, rows, values.new_ones(len(values)))
    return (sums / tokens.clamp(min=1.0)).sum() / max(count, 1)


def sum_over_examples(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Sum over the tokens of each example.

    Args:
        values: `[n]`, one value for each answer token.
        owners: int64 `[n]`, the example of each token, in [0, count).
        count: number of examples.

    Returns:
        `[count]`.
    """
    return values.new_zeros(count).index_add(0, owners, values)


def npo(log_p: Tensor, log_p0: Tensor, beta: float) -> Tensor:
    r"""Compute the loss of negative preference optimisation (NPO, arXiv 2404.05868, equation 3).

    .. math:: -\frac{2}{\beta} \log \sigma(-\beta (\log p(y) - \log p_0(y)))

    Its gradient is that of gradient ascent, weighted by 2 sigma(beta log p/p_0); with beta -> 0 the weight is 1.

    Args:
        log_p: log-probabilities of the answers, `[b]`.
        log_p0: the same of the base, `[b]`.
        beta: inverse temperature, positive.

    Returns:
        `[b]`.
    """
    return -2.0 / beta * F.logsigmoid(-beta * (log_p - log_p0))


def simnpo(mean_log_p: Tensor, beta: float, margin: float) -> Tensor:
    r"""Compute the loss of SimNPO (arXiv 2410.07163, equation 4), which is NPO without a base and with a mean over tokens.

    .. math:: -\frac{2}{\beta} \log \sigma(-\frac{\beta}{|y|} \log p(y) - \gamma)

    Args:
        mean_log_p: log-probabilities of the answers, each divided by its number of tokens, `[b]`.
        beta: inverse temperature, positive.
        margin: gamma of the equation.

    Returns:
        `[b]`.
    """
    return -2.0 / beta * F.logsigmoid(-beta * mean_log_p - margin)


def dpo(chosen: Tensor, chosen0: Tensor, rejected: Tensor, rejected0: Tensor, beta: float) -> Tensor:
    r"""Compute the loss of direct preference optimisation (DPO, arXiv 2305.18290, equation 7).

    .. math:: -\log \sigma(\beta [\log p/p_0 (chosen) - \log p/p_0 (rejected)])

    Args:
        chosen: log-probabilities of the preferred answers, `[b]`.
        chosen0: the same of the base, `[b]`.
        rejected: log-probabilities of the rejected answers, `[b]`.
        rejected0: the same of the base, `[b]`.
        beta: inverse temperature, positive.

    Returns:
        `[b]`.
    """
    return -F.logsigmoid(beta * ((chosen - chosen0) - (rejected - rejected0)))


def undial(base: Tensor, logits: Tensor, targets: Tensor, strength: float) -> Tensor:
    r"""Compute the loss of UNDIAL (arXiv 2402.10052, equation 3): cross-entropy to the base's distribution with a lowered answer token.

    .. math:: CE(softmax(z_0 - \gamma 1[v = y_t]), p)

    Args:
        base: logits of the base, `[n, v]`.
        logits: logits of the model, `[n, v]`.
        targets: int64 `[n]`, the answer tokens.
        strength: gamma of the equation: what is subtracted from the base's logit of the answer token.

    Returns:
        `[n]`, in nats.
    """
    lowered = base.float().scatter_add(-1, targets[:, None], base.new_full((len(targets), 1), -strength, dtype=torch.float32))
    return -(F.softmax(lowered, dim=-1) * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1)


def misdirection(hidden: Tensor, target: Tensor) -> Tensor:
    """Compute the squared distance of hidden states `[n, h]` from their targets `[n, h]` or `[h]` -> `[n]` (RMU, arXiv 2403.03218)."""
    return (hidden.float() - target.float()).square().sum(dim=-1)


def wga(logits: Tensor, targets: Tensor, beta: float) -> Tensor:
    r"""Compute the loss of weighted gradient ascent (WGA, arXiv 2502.19301): likely tokens are pushed down harder than unlikely ones.

    .. math:: p(y_t)^\beta \log p(y_t)

    The weight is a constant: no gradient goes through it.

    Args:
        logits: `[n, v]`.
        targets: int64 `[n]`, the answer tokens.
        beta: exponent of the weight; 0 is plain gradient ascent.

    Returns:
        `[n]`.
    """
    log_p = -answer_nll(logits, targets)
    return (beta * log_p.detach()).exp() * log_p


def satimp(logits: Tensor, targets: Tensor, saturation: float, importance: float) -> Tensor:
    r"""Compute the loss of SatImp (arXiv 2505.11953): ascent with a weight for saturation and one for importance.

    .. math:: p(y_t)^{\beta_1} (1 - p(y_t))^{\beta_2} \log p(y_t)

    The weights are constants: no gradient goes through them.

    Args:
        logits: `[n, v]`.
        targets: int64 `[n]`, the answer tokens.
        saturation: beta_1; tokens that are unlikely already get less.
        importance: beta_2; tokens that are certain, as function words are, get less.

    Returns:
        `[n]`.
    """
    log_p = -answer_nll(logits, targets)
    p = log_p.detach().exp()
    return p**saturation * (1.0 - p) ** importance * log_p


def flattening(logits: Tensor) -> Tensor:
    """Compute how far a distribution is from a uniform one without a softmax: (largest logit - mean logit)^2 of `[n, v]` -> `[n]` (PDU,
    arXiv 2506.05314)."""
    logits = logits.float()
    return (logits.max(dim=-1).values - logits.mean(dim=-1)).square()


def top_logits(teacher: Tensor, student: Tensor, count: int) -> Tensor:
    r"""Compute the distance of raw logits where the teacher's are largest (DUET, arXiv 2601.21283).

    .. math:: \sum_{v \in top_K(z_T)} huber(z_v - z_{T,v})

    Args:
        teacher: logits `[n, v]`.
        student: logits `[n, v]`.
        count: K; with fewer words than that, all are compared.

    Returns:
        `[n]`; Huber's loss is d^2/2 up to a difference of 1, and |d| - 1/2 beyond.
    """
    best = teacher.float().topk(min(count, teacher.shape[-1]), dim=-1)
    found = student.float().gather(-1, best.indices)
    return F.huber_loss(found, best.values, reduction="none").sum(dim=-1)


def masked_kl(teacher: Tensor, student: Tensor, left_out: Tensor) -> Tensor:
    r"""Compute the KL divergence without some words (SIU, arXiv 2405.12523): :math:`\sum_{v \notin M} p_T (\log p_T - \log p)`.

    Probabilities are those over all words, so that it may be negative: where the words that are left out lose, the others gain.

    Args:
        teacher: logits `[n, v]`.
        student: logits `[n, v]`.
        left_out: bool `[v]`, the words M.

    Returns:
        `[n]`, in nats.
    """
    p, q = (F.log_softmax(logits.float(), dim=-1) for logits in (teacher, student))
    return (p.exp() * (p - q)).masked_fill(left_out, 0.0).sum(dim=-1)
