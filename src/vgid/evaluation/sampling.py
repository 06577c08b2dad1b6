"""Draw tokens at random instead of taking the likeliest: the same draws for an answer, whatever batch it is in.

Shapes: e answers of a batch, v vocabulary, t new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from vgid.memory import to_device
from vgid.seeds import derive_seed


class Sampling(NamedTuple):
    """How an answer's tokens are drawn.

    Attributes:
        temperature: logits are divided by it; above 0.
        top_p: only the likeliest tokens that together hold this share of the probability are drawn, in (0, 1] (nucleus sampling, arXiv
            1904.09751).
        seed: seed of the draws, which also depend on the answer's key.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def numbers(self, keys: Sequence[str], tokens: int) -> Tensor:
        """Uniform random numbers `[e, t]` in [0, 1), one for each token of each answer; they depend on seed and key alone."""
        drawn = [np.random.default_rng(derive_seed("sampling", self.seed, key)).random(tokens) for key in keys]
        return torch.from_numpy(np.stack(drawn))

    def draw(self, scores: Tensor, numbers: Tensor) -> Tensor:
        """Draw one token of each answer by inverting the distribution function.

        Args:
            scores: logits `[e, v]`.
            numbers: uniform random numbers `[e]` in [0, 1).

        Returns:
            Token ids `[e]`.
        """
        # In double precision: sums over 100,000 tokens.
        chances, order = (scores.double() / self.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = chances.cumsum(-1) - chances
        kept = chances.masked_fill(before >= self.top_p, 0)  # the likeliest token is always kept
        heights, numbers = kept.cumsum(-1), to_device(numbers, scores.device)
        place = (heights <= numbers[:, None] * heights[:, -1:]).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        return order.gather(-1, place)[:, 0]


class DrawnTokens(LogitsProcessor):
    """Leaves greedy decoding one token to choose: the one that was drawn.

    Args:
        sampling: how tokens are drawn.
        numbers: random numbers `[e, t]`.
        width: number of tokens of the padded prompts.
    """

    def __init__(self, sampling: Sampling, numbers: Tensor, width: int) -> None:
        self.sampling, self.numbers, self.width = sampling, numbers, width

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Give the drawn token of each answer the only finite score."""
        tokens = self.sampling.draw(scores, self.numbers[:, input_ids.shape[1] - self.width])
        return torch.full_like(scores, float("-inf")).scatter(-1, tokens[:, None], 0.0)
