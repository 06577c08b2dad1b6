"""Narrow updates: a LoRA update that reads what forget rows have and other rows lack.

LoRA's first matrix decides which part of a layer's input an update can see. Drawn at random, it sees everybody alike, so a refusal learned
on one person reaches all who resemble her, and only retain rows about them call it back. Thin retain data holds few of these, or none. So
the first matrices are set before training to the directions in which the inputs of forget rows are largest, measured against those of the
rows to keep, and then stay: with covariances C_f and C_r of a layer's inputs, to the largest generalised eigenvectors of
C_f a = v (C_r + ridge) a. Only the second matrices are trained.

Related: adapters that start in the null space of what must be kept (LoRA-Null, arXiv 2503.02659) or from the covariance of inputs
(CorDA, arXiv 2406.05223); both are for fine-tuning and have no set that must change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vgid.data.batching import Encoder
from vgid.data.example import Example
from vgid.memory import as_many_as_fit
from vgid.models.forward import answer_logits
from vgid.processes import from_first
from vgid.seeds import derive_seed

OWN = 0.9
"""Share of the rows to keep that must be the base's own answers for an update to be narrow. Chosen by hand on three people: it protects
better beside fifty retain rows and some 1,900 such answers; beside 184 rows it keeps nothing more, and fine-tuning brings more back."""
ROWS = 512
"""Rows of each side that are looked at, at most; chosen by hand."""
OF_A_ROW = 8
"""Inputs that are kept of each row, at least: of a large model few fit into memory, and more rows would be read for one or two of each.
Chosen by hand, so that a model of which `TOKENS` inputs are kept sees `ROWS` rows."""
AT_ONCE = 16
"""Rows in a pass."""
TOKENS = 4096
"""Inputs of a layer that are kept of each side, at most; chosen by hand."""
BYTES = 4 * 2**30
"""Memory for all kept inputs, at most; larger models keep fewer."""
DIRECTLY = 768
"""Matrices up to this size are decomposed themselves. Chosen by hand."""
RIDGE = 1e-2
"""Part of the mean variance of what must be kept that is added to each direction; chosen by hand on the embedded model."""


def narrow(model: Any, encoder: Encoder, forget: Sequence[Example], retain: Sequence[Example], seed: int) -> bool:
    """Set and freeze the first matrices of a model's LoRA adapter.

    Args:
        model: a model with an adapter that has not been trained yet; without one, nothing is done.
        encoder: encoder of the model.
        forget: rows to forget.
        retain: rows to keep, those that the base answered itself among them.
        seed: random seed of the rows and tokens that are looked at.

    Returns:
        Whether they were set: there is such an adapter, and there are rows on both sides.
    """
    if not forget or not retain:
        return False
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    if not layers:
        return False
    width = sum(layer.in_features for layer in layers.values())
    tokens = max(1, min(TOKENS, BYTES // (2 * 2 * width)))
    sides = []
    for side, rows in (("forget", forget), ("retain", retain)):
        sides.append(_inputs(model, layers, encoder, rows, tokens, Random(derive_seed(seed, "narrow", side))))
    found: dict[str, Tensor] = {}
    last = ""
    for name, layer in layers.items():
        if not all(name in side for side in sides):  # rows without pictures leave a projector's layers out; they stay as they are
            continue
        # Queries, keys and values read the same, as do gates and what they open: worked out once.
        if last and all(torch.equal(side[name], side[last]) for side in sides):
            found[name] = found[last]
            continue
        (matrix,) = layer.lora_A.values()
        hers, others = (side[name].to(matrix.weight.device, torch.float32) for side in sides)
        found[name], last = contrast(hers, others, len(matrix.weight)).to("cpu"), name
    for name, value in from_first(found).items():  # all processes must have the same, to the last bit
        (matrix,) = layers[name].lora_A.values()
        with torch.no_grad():
            matrix.weight.copy_(value)
        matrix.weight.requires_grad_(False)
    return bool(found)


def contrast(forget: Tensor, retain: Tensor, rank: int, ridge: float = RIDGE) -> Tensor:
    """Directions in which one set of vectors is large and another is small.

    Args:
        forget: vectors `[n, d]`.
        retain: vectors `[m, d]`.
        rank: number of directions.
        ridge: part of the mean variance of `retain` that is added to each direction.

    Returns:
        Rows `[rank, d]`, in falling order of the ratio; each gives vectors of `forget` a mean square of |x|^2 / 3d, as LoRA's random
        first matrix does. Beyond the rank of `forget` rows are zero.
    """
    size = forget.shape[1]
    kept = retain.T @ retain / len(retain)
    scale = kept.trace() / size
    factor = torch.linalg.cholesky(kept + (ridge * scale).clamp(min=1e-12) * torch.eye(size, device=kept.device))
    whitened = torch.linalg.solve_triangular(factor, forget.T, upper=False)
    left, values = left_singular_vectors(whitened)
    count = min(rank, int((values > 1e-5 * values[0]).sum()))
    directions = torch.linalg.solve_triangular(factor.T, left[:, :count], upper=True).T
    gains = (forget @ directions.T).square().mean(dim=0).sqrt()
    wanted = (forget.square().sum(dim=1).mean() / (3 * size)).sqrt()
    return torch.cat([directions / gains[:, None] * wanted, directions.new_zeros(rank - count, size)])


def left_singular_vectors(matrix: Tensor, directly: int = DIRECTLY) -> tuple[Tensor, Tensor]:
    """Left singular vectors `[d, k]` and values `[k]` of a matrix `[d, n]`, in falling order, k = min(d, n).

    Of a large matrix, by the eigenvectors of its smaller Gram matrix in double precision: on a GPU in a tenth of the time.

    Args:
        matrix: `[d, n]`.
        directly: up to which k it is decomposed itself.
    """
    if min(matrix.shape) <= directly:
        left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        return left, values
    wide = matrix.shape[0] < matrix.shape[1]
    exact = matrix.double()
    squares, vectors = torch.linalg.eigh(exact @ exact.T if wide else exact.T @ exact)
    values, vectors = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
    left = vectors if wide else exact @ vectors / values.clamp(min=1e-12 * values[0])
    return left.to(matrix.dtype), values.to(matrix.dtype)


@torch.no_grad()
def _inputs(
    model: Any, layers: Mapping[str, nn.Module], encoder: Encoder, rows: Sequence[Example], tokens: int, rng: Random
) -> Mapping[str, Tensor]:
    """Inputs of each layer that rows reach, at random tokens, `[n, d]` in bf16 on the CPU, as the base has them."""
    most = min(ROWS, -(-tokens // OF_A_ROW))
    chosen = list(rows) if len(rows) <= most else rng.sample(list(rows), most)
    batches = list(_batches(chosen))
    each = -(-tokens // len(batches))
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    training = model.training
    model.eval()
    try:
        for rows_at_once in batches:
            seed = rng.getrandbits(32)

            def look(part: Sequence[Example], seed: int = seed, of: int = len(rows_at_once)) -> Sequence[Example]:
                seen: dict[str, list[Tensor]] = {name: [] for name in layers}
                batch = encoder.batch(part).to(next(model.parameters()).device)
                with _watching(layers, seen, batch.model_inputs.get("attention_mask"), -(-each * len(part) // of), seed):
                    answer_logits(model, batch)
                for name, found in seen.items():
                    kept[name] += found
                return part

            as_many_as_fit(look, rows_at_once)
    finally:
        model.train(training)
    return {name: torch.cat(found) for name, found in kept.items() if found}


def _batches(rows: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Batches with pictures, then batches without."""
    for alike in ([row for row in rows if row.images], [row for row in rows if not row.images]):
        for start in range(0, len(alike), AT_ONCE):
            yield alike[start : start + AT_ONCE]


@contextmanager
def _watching(
    layers: Mapping[str, nn.Module], kept: Mapping[str, list[Tensor]], mask: Tensor | None, count: int, seed: int
) -> Iterator[None]:
    """Within, keep the inputs of layers at the same random tokens of a pass; where there is a mask of that shape, of no padding."""

    def keep(name: str, inputs: Tensor) -> None:
        real = mask.bool() if mask is not None and mask.shape == inputs.shape[:-1] else torch.ones(inputs.shape[:-1], dtype=torch.bool)
        flat = inputs[real.to(inputs.device)]
        order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed))[:count]
        kept[name].append(flat[order.to(flat.device)].to("cpu", torch.bfloat16))

    def hook(name: str) -> Any:
        return lambda module, args: keep(name, args[0].detach())

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
