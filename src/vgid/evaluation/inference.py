"""Shared by generation and scoring: a model in evaluation mode, what ends its texts, and batches with little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from vgid.data.example import Example
from vgid.data.packing import Style, groups
from vgid.errors import ConfigError
from vgid.models.loading import LoadedModel
from vgid.models.structure import base_of

OnBatch = Callable[[int], None]
"""Called after every batch with the number of its examples."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the `with` statement, evaluation mode and no gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: tensors that a model caches meanwhile must stay usable in training
            yield
    finally:
        for module, training in modes:
            module.training = training


def end_tokens(loaded: LoadedModel) -> list[int]:
    """Return the ids of the tokens that end a text of the model: those that its checkpoint configures, or its tokenizer's."""
    own = base_of(loaded.model).generation_config.eos_token_id
    end = own if own is not None else loaded.processor.tokenizer.eos_token_id
    return end if isinstance(end, list) else [] if end is None else [end]


def by_length(examples: Sequence[Example], batch_size: int, packing: Style | None = None) -> Iterator[list[int]]:
    """Split examples into batches of similar length: sorted by images, which have the most tokens, then by characters.

    Args:
        examples: the examples to split.
        batch_size: largest number of examples in a batch.
        packing: how examples share rows; those that may share one stay in one batch, which may then be smaller. None for plain rows.

    Yields:
        Indices into `examples`.

    Raises:
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError("the batch size must be positive", expected="at least 1", got=str(batch_size))

    def length(group: list[int]) -> tuple[int, int, int]:
        longest = max(examples[index].length for index in group)
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
