"""What generation and scoring share: a model that only looks, and batches without much padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from vgid.data.example import Example
from vgid.errors import ConfigError

Done = Callable[[int], None]
"""Told, after every batch, how many examples it held."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module is in the mode it was in, also where these differed."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: what a model caches meanwhile must still do for training
            yield
    finally:
        for module, training in modes:
            module.training = training


def by_length(examples: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of like length: images first, since they are worth the most tokens, then characters.

    Raises:
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError("the batch size must be positive", expected="at least 1", got=str(batch_size))

    def length(index: int) -> tuple[int, int]:
        return len(examples[index].images), len(examples[index].question) + len(examples[index].answer)

    # Longest first, so that running out of memory shows at once.
    order = sorted(range(len(examples)), key=length, reverse=True)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
