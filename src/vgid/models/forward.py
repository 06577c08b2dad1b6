"""Logits where they are needed: the whole body once, the head only at answer positions.

Shapes: b rows, s positions, n answer tokens, v vocabulary, h hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vgid.data.batching import Batch
from vgid.models.packing import model_inputs


def answer_logits(model: Any, batch: Batch) -> Tensor:
    """Logits `[n, v]` that predict the batch's answer tokens.

    The head is given the hidden states at answer positions only (`[1, n, h]` in place of `[b, s, h]`), so that `[b, s, v]` never
    exists. All else is the model's own forward pass, whatever its family does before or after the head.
    """
    return answer_states(model, batch).logits


class States(NamedTuple):
    """At answer positions: `hidden` `[n, h]`, which the head is given, and `logits` `[n, v]`."""

    hidden: Tensor
    logits: Tensor


def answer_states(model: Any, batch: Batch) -> States:
    """Logits as in `answer_logits`, and the hidden states they are made of."""
    rows, positions, _ = batch.answers
    with head_at(model, rows, positions) as seen:
        logits: Tensor = model(**model_inputs(model, batch), use_cache=False).logits[0]
    return States(seen[0][0], logits)


@contextmanager
def head_at(model: Any, rows: Tensor, positions: Tensor) -> Iterator[list[Tensor]]:
    """Meanwhile the head is given the hidden states at `[rows[k], positions[k]]` only: logits are `[1, n, v]`.

    The list holds these states, `[1, n, h]`, afterwards.
    """
    seen: list[Tensor] = []

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0][rows, positions][None])
        return (seen[-1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        hook.remove()


def layer_states(model: Any, batch: Batch, layer: nn.Module) -> Tensor:
    """What a layer of the decoder gives out where answer tokens are predicted, `[n, h]`."""
    return several_states(model, batch, [layer])[0]


def several_states(model: Any, batch: Batch, layers: Sequence[nn.Module]) -> list[Tensor]:
    """What some layers of the decoder give out where answer tokens are predicted, `[n, h]` each, in the order of the layers."""
    return logits_and_states(model, batch, layers, *batch.answers[:2])[1]


def logits_and_states(
    model: Any, batch: Batch, layers: Sequence[nn.Module], rows: Tensor, positions: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """In one pass: logits as in `answer_logits`, and what layers give out at `[rows[k], positions[k]]`, `[k, h]` each."""
    states: dict[int, Tensor] = {}
    # A checkpointed layer runs again for its gradients, without this hook, so nothing may be worked out in there.
    later = torch.is_grad_enabled()

    def keep(number: int, _: nn.Module, __: Any, output: Any) -> None:
        whole = output[0] if isinstance(output, tuple) else output
        states[number] = whole if later else whole[rows, positions]

    hooks = [layer.register_forward_hook(partial(keep, number)) for number, layer in enumerate(layers)]
    try:
        logits = answer_logits(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    found = [states[number] for number in range(len(layers))]
    return logits, [each[rows, positions] for each in found] if later else found


def all_logits(model: Any, batch: Batch) -> Tensor:
    """Logits at every position, `[b * s, v]`: what the released code distils on, and the slow twin of `answer_logits`."""
    logits: Tensor = model(**batch.model_inputs, use_cache=False).logits
    return logits.flatten(0, 1)
