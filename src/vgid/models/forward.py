"""Logits where they are needed: one pass through the whole body, the head at answer positions only.

Shapes: b rows, s positions, n answer tokens, v vocabulary, h hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vgid.data.batching import Batch, Embedded
from vgid.errors import ModelError, VgidError, first_line
from vgid.models.packing import model_inputs
from vgid.models.structure import base_of


def answer_logits(model: Any, batch: Batch) -> Tensor:
    """Compute the logits that predict the batch's answer tokens.

    The head gets the hidden states at answer positions only, `[1, n, h]` instead of `[b, s, h]`, so that the tensor `[b, s, v]` never
    exists. All else is the model's own forward pass, whatever its family does before or after the head.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        batch: examples with answers, on the model's device.

    Returns:
        Logits `[n, v]`, in the order of `batch.answers`.
    """
    return answer_states(model, batch).logits


class States(NamedTuple):
    """Results of one pass at answer positions.

    Attributes:
        hidden: `[n, h]`, inputs of the head.
        logits: `[n, v]`.
    """

    hidden: Tensor
    logits: Tensor


def answer_states(model: Any, batch: Batch) -> States:
    """Compute logits as in `answer_logits`, and return the hidden states that they are computed from."""
    rows, positions, _ = batch.answers
    with (
        understood(getattr(base_of(model), "name_or_path", "")),
        head_at(model, rows, positions) as seen,
        pictures_at(model, batch.embedded),
    ):
        logits: Tensor = model(**model_inputs(model, batch), use_cache=False).logits[0]
    return States(seen[0][0], logits)


@contextmanager
def understood(path: str) -> Iterator[None]:
    """Within the `with` statement, a model that fails is one clear error: a checkpoint whose files do not fit together can be loaded.

    Args:
        path: the model's folder or hub id.

    Raises:
        ModelError: the model failed.
    """
    try:
        yield
    except VgidError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise ModelError(
            "the model fails on a row",
            where=path,
            expected="a configuration, a processor and weights of the same checkpoint",
            got=f"{type(error).__name__}: {first_line(error)}",
            fix="copy all files of the checkpoint anew",
        ) from error


@contextmanager
def head_at(model: Any, rows: Tensor, positions: Tensor) -> Iterator[list[Tensor]]:
    """Within the `with` statement, the head gets the hidden states at `[rows[k], positions[k]]` only, and logits are `[1, n, v]`.

    This assumes that a forward pass calls the head once, with the hidden states `[b, s, h]` of the whole batch. A model that called it for
    one chunk after another would select wrong positions. The tests over families compare the result with `all_logits`.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        rows: int64 `[n]`, rows of the batch.
        positions: int64 `[n]`, positions in these rows.

    Yields:
        A list that holds the selected states, `[1, n, h]`, after each forward pass.
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


@contextmanager
def pictures_at(model: Any, embedded: Embedded | None) -> Iterator[None]:
    """Within the `with` statement, the decoder gets embedded pictures in place of what their tokens are embedded as.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        embedded: places and embeddings; None changes nothing.
    """
    if embedded is None:
        yield
        return

    def put(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.index_put((embedded.rows, embedded.positions), embedded.values.to(output.dtype))

    hook = model.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


def layer_states(model: Any, batch: Batch, layer: nn.Module) -> Tensor:
    """Compute the output of one decoder layer at the positions that predict answer tokens.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        batch: examples with answers, on the model's device.
        layer: a layer of this model's decoder.

    Returns:
        `[n, h]`, in the order of `batch.answers`.
    """
    return several_states(model, batch, [layer])[0]


def several_states(model: Any, batch: Batch, layers: Sequence[nn.Module]) -> list[Tensor]:
    """Compute the outputs of several decoder layers at the positions that predict answer tokens.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        batch: examples with answers, on the model's device.
        layers: layers of this model's decoder.

    Returns:
        One tensor `[n, h]` for each layer, in the order of `layers`.
    """
    return logits_and_states(model, batch, layers, *batch.answers[:2])[1]


def logits_and_states(
    model: Any, batch: Batch, layers: Sequence[nn.Module], rows: Tensor, positions: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Compute answer logits and the outputs of several decoder layers in one pass.

    Args:
        model: a transformers model, with or without PEFT's wrapper.
        batch: examples with answers, on the model's device.
        layers: layers of this model's decoder.
        rows: int64 `[k]`, rows of the batch at which outputs are taken.
        positions: int64 `[k]`, positions in these rows.

    Returns:
        Logits `[n, v]` as in `answer_logits`, and one tensor `[k, h]` for each layer, in the order of `layers`.
    """
    states: dict[int, Tensor] = {}
    # With gradient checkpointing, a layer runs a second time in the backward pass, without this hook. Positions that the hook selects
    # would then be missing there, and PyTorch stops with "a different number of tensors was saved". So with gradients, the hook keeps
    # the whole output, and positions are selected after the pass.
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
    """Compute logits at every position, `[b * s, v]`: what the released VGID code distils on, and the slow reference of `answer_logits`."""
    logits: Tensor = model(**batch.model_inputs, use_cache=False).logits
    return logits.flatten(0, 1)
