r"""Influential neuron paths of MIP-Editor (Li et al., arXiv 2511.06793, equations 4 and 6): which neurons an answer goes through.

A path holds one neuron of each feed-forward block. Block by block, that neuron joins which gives the path so far the highest score.
With activations scaled from 1/m to m/m of what they are, a path w scores

.. math::
    IGI(w) &= \sum_t (\sum_j \tilde w^j_t) \frac{1}{m} \sum_k (\sum_l \partial F / \partial w^l_t), \quad F = \sum_t p(y_t) \\
    IFI(z) &= \sum_t (\sum_j \tilde z^j_t) \frac{1}{m} \sum_k (\sum_l \partial G / \partial z^l_t)^2, \quad G = \sum_t \log p(y_t)

in the language model, at answer positions, and in the vision tower, at all patches. The candidates of a block are scaled together, as
by Dai et al. (arXiv 2104.08696), so that a block costs one pass in place of one for each of its neurons.

Shapes: t positions that count, m neurons of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vgid.data.batching import Batch
from vgid.losses import answer_nll
from vgid.methods.common.neurons import check_finite, watched
from vgid.models.forward import answer_logits
from vgid.models.structure import MLP


def positions(block: MLP, batch: Batch, neurons: Tensor) -> Tensor:
    """Positions at which a block's neurons count, in a batch of copies of one row.

    Args:
        block: a feed-forward block.
        batch: copies of one row.
        neurons: activations of the block, `[..., m]`.

    Returns:
        Positions `[t]`: where answers are predicted in the language model, all patches in the vision tower.
    """
    if block.part == "language":
        return batch.answers.positions[batch.answers.rows == 0]
    return torch.arange(neurons.numel() // neurons.shape[-1] // len(batch.ids), device=neurons.device)


def path_scores(
    model: Any, batch: Batch, blocks: Sequence[MLP], clean: Mapping[int, Tensor], path: Mapping[int, int], place: int
) -> Tensor | None:
    """What each neuron of a block would make of the path, `[m]`; None for a block that the answer does not depend on.

    Args:
        model: the model.
        batch: one row, as many times as there are frames.
        blocks: of one part of the model.
        clean: undisturbed neurons of each block, `[t, m]`.
        path: block to neuron, so far.
        place: place of the block to score.

    Returns:
        Scores of the block's neurons, `[m]`, or None.
    """
    frames = len(batch.ids)
    scale = (torch.arange(1, frames + 1, device=clean[place].device) / frames)[:, None, None]  # [frames, 1, 1]
    leaves: dict[int, Tensor] = {}

    def see(at: int, neurons: Tensor) -> Tensor | None:
        if at != place and at not in path:
            return None
        columns = slice(None) if at == place else slice(path[at], path[at] + 1)
        leaves[at] = (scale * clean[at][None, :, columns]).to(neurons.dtype).requires_grad_()  # [frames, t, m or 1]
        out = neurons.reshape(frames, -1, neurons.shape[-1]).clone()
        out[:, positions(blocks[at], batch, neurons), columns] = leaves[at]
        return out.view_as(neurons)

    with watched(blocks, see), torch.enable_grad():
        log_p = -answer_nll(answer_logits(model, batch), batch.answers.targets)
        language = blocks[place].part == "language"
        score = (log_p.exp() if language else log_p).sum()
        slopes = dict(zip(leaves, torch.autograd.grad(score, list(leaves.values()), allow_unused=True), strict=True))
    if slopes[place] is None:
        return None
    activation = clean[place] + sum(clean[at][:, [neuron]] for at, neuron in path.items())  # [t, m]
    slope = slopes[place] + sum(slopes[at] for at in path)  # [frames, t, m]
    return check_finite((activation * (slope if language else slope.square()).mean(dim=0)).sum(dim=0))


def locate(model: Any, one: Batch, copies: Batch, blocks: Sequence[MLP], top_k: int) -> dict[int, Tensor]:
    """Follow one row's path through the blocks that its answer depends on.

    Args:
        model: the model.
        one: the row.
        copies: the row, once for each step of the integral.
        blocks: blocks of one part of the model, in their order.
        top_k: neurons to return for each block.

    Returns:
        Place of a block to its `top_k` best neurons, the path's first.
    """
    clean: dict[int, Tensor] = {}

    def see(place: int, neurons: Tensor) -> None:
        flat = neurons.detach().reshape(-1, neurons.shape[-1])
        clean[place] = flat[positions(blocks[place], one, neurons)]

    with watched(blocks, see), torch.no_grad():
        answer_logits(model, one)
    path: dict[int, int] = {}
    best: dict[int, Tensor] = {}
    for place in sorted(clean):
        scores = path_scores(model, copies, blocks, clean, path, place)
        if scores is not None:  # LLaVA, for one, throws the last layer of its tower away
            best[place] = scores.topk(min(top_k, len(scores))).indices
            path[place] = int(best[place][0])
    return best
