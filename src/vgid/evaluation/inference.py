"""What generation and scoring share: a model that only looks, and batches without much padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from vgid.data.example import Example
from vgid.data.packing import Style, groups
from vgid.errors import ConfigError

OnBatch = Callable[[int], None]
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


def by_length(examples: Sequence[Example], batch_size: int, packing: Style | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length: images first, since they are worth the most tokens, then characters.

    With `packing`, examples that may share a row stay together; a batch may then be smaller by a part of such a group.

    Raises:
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError("the batch size must be positive", expected="at least 1", got=str(batch_size))

    def length(group: list[int]) -> tuple[int, int, int]:
        longest = max(len(examples[index].question) + len(examples[index].answer) for index in group)
        return len(examples[group[0]].images), len(group), longest

    together = groups(examples, min(packing.questions, batch_size)) if packing else [[index] for index in range(len(examples))]
    batch: list[int] = []
    # Longest first, so that running out of memory shows at once.
    for group in sorted(together, key=length, reverse=True):
        if len(batch) + len(group) > batch_size:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch
