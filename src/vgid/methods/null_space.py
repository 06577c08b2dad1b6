r"""Null-space constrained contrastive visual forgetting (Wang et al., arXiv 2605.05909): what is seen of forget pictures moves, in
directions that retain pictures do not use.

.. math:: L = E_f[-\log \frac{e^{\cos(f, c)/\tau}}{e^{\cos(f, c)/\tau} + e^{\cos(f, f_0)/\tau}}] + \lambda E_r[\|v - v_0\|^2 / \|v_0\|^2]

v is what the decoder sees of a picture, token by token, f its mean over tokens, f_0 the same of the base, and c the mean of f_0 over retain
pictures: the embedding of somebody whom the model does not know in particular. The language model is frozen.

The constraint: let x be the inputs of a layer for retain pictures. Its update is B A, where the rows of A are fixed before training: they
are orthogonal to the directions that hold `energy` of the retain inputs' squares, and of what is left, those in which forget inputs are
largest. So A x = 0 up to the rest of the energy whatever B becomes, with any optimizer.

Written after the paper's abstract and public summaries. It projects gradients; fixing A has the same effect with a low-rank update and
also holds for Adam, whose steps leave the space of projected gradients. The contrast with c and f_0, its temperature and the retain term
are ours, and the paper's continual setting is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vgid.data.example import Example
from vgid.errors import ConfigError, DataError, RunError
from vgid.methods.base import METHODS, Context, Defaults, LossOutput, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.neurons import sample
from vgid.methods.common.sight import Sight, require_pictures, visual_drift, with_pictures
from vgid.models.adapters import adapted_modules, reference
from vgid.models.structure import base_of, inspect_model
from vgid.processes import is_sharded
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")
AT_ONCE = 8
"""Pictures in one pass."""


class NullSpaceConfig(MethodConfig):
    """Settings of null-space constrained contrastive visual forgetting.

    Attributes:
        energy: share of the retain inputs' squares that no update may touch, in each layer.
        temperature: tau, of the contrast.
        retain_weight: lambda.
        pictures: rows of each set, drawn by the seed, from which directions are found, at most.
    """

    energy: float = Field(default=0.99, gt=0.0, lt=1.0)
    temperature: float = Field(default=0.1, gt=0.0)
    retain_weight: float = Field(default=1.0, ge=0.0)
    pictures: int = Field(default=256, ge=1)


def free_directions(retain: Tensor, forget: Tensor, rank: int, energy: float) -> Tensor:
    """Find directions that retain inputs leave free, those first in which forget inputs are largest.

    Args:
        retain: sum of x x^T over retain inputs, `[m, m]`.
        forget: the same over forget inputs.
        rank: number of directions.
        energy: share of retain's trace that must be orthogonal to all directions.

    Returns:
        Orthonormal rows `[rank, m]`; rows of zeros where fewer directions are free.
    """
    values, vectors = torch.linalg.eigh(retain.double())
    # Ascending: a direction is free while all up to it hold no more than the rest of the energy.
    free = vectors[:, values.clamp(min=0.0).cumsum(0) <= (1.0 - energy) * values.clamp(min=0.0).sum()]
    rows = torch.zeros(rank, len(retain), dtype=torch.float64, device=retain.device)
    if free.shape[1]:
        _, inner = torch.linalg.eigh(free.T @ forget.double() @ free)
        best = (free @ inner.flip(-1)[:, :rank]).T
        rows[: len(best)] = best
    return rows


@METHODS.register("null_space")
class NullSpace(Method[NullSpaceConfig]):
    """Make forget pictures look like anybody's, by updates that retain pictures do not feel."""

    Config = NullSpaceConfig
    paper = "2605.05909"
    needs = ("forget rows with pictures", "retain data with pictures", "the untouched base")
    trainable = ("adapter",)
    defaults: ClassVar[Defaults] = {"adapter.scope": ["vision", "projector"]}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-4, 2e-2, log=True),
        "method.energy": (0.9, 0.99, 0.999),
        "method.temperature": Range(0.03, 0.5, log=True),
        "method.retain_weight": Range(0.1, 8.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Fix the first matrix of every adapter in the null space of the retain pictures.

        Raises:
            DataError: there is no forget row or no retain row with a picture.
            ConfigError: the language model has adapters, or parameters are sharded.
            RunError: activations are not finite.
        """
        super().prepare(model, context)
        require_pictures("null_space", context)
        seen = with_pictures(context.retain)
        if not seen:
            context.require_retain("null_space")
            raise DataError(
                "null_space finds free directions from retain pictures, and no retain row has one",
                expected="at least one retain row with a picture",
                got=f"{len(context.retain)} rows, all of them text only",
                fix="give retain rows with pictures, or take another method",
            )
        self._check(model)
        self.sight = Sight(context)
        layers = {name: base_of(model).get_submodule(name) for name in adapted_modules(model)}
        chosen = [
            sample(rows, self.config.pictures, derive_seed(context.seed, "null space", name))
            for name, rows in (("retain", seen), ("forget", with_pictures(context.forget)))
        ]
        retain, forget = (self._moments(model, layers, rows) for rows in chosen)
        count = 0
        for name, layer in layers.items():
            weight = layer.lora_A["default"].weight
            weight.requires_grad_(False)
            rows = torch.zeros_like(weight)
            if name in retain and name in forget:  # LLaVA, for one, throws the last layers of its tower away
                rows = free_directions(retain[name], forget[name], len(weight), self.config.energy)
            count += int((rows.norm(dim=-1) > 0).sum())
            weight.copy_(rows.to(weight))
        log.info("updates are confined to %d directions in %d layers", count, len(layers))
        self.somebody = torch.stack([each.float().mean(0) for each in self.sight.before(model, chosen[0])]).mean(0)

    def _check(self, model: Any) -> None:
        structure = inspect_model(base_of(model))
        if is_sharded(model) or any(structure.part_of(name) == "language" for name in adapted_modules(model)):
            raise ConfigError(
                "null_space confines updates of the visual part of a model that is whole in every process",
                where="adapter.scope, training.shard",
                expected="adapter.scope of vision and projector, training.shard=false",
                got="sharded parameters" if is_sharded(model) else "adapters on the language model",
                fix='set adapter.scope=["vision", "projector"]',
            )

    @torch.no_grad()
    def _moments(self, model: Any, layers: dict[str, nn.Module], rows: Sequence[Example]) -> dict[str, Tensor]:
        """Sum of x x^T over the inputs of each layer that runs, `[m, m]`."""
        found: dict[str, Tensor] = {}
        with reference(model, copy=self.context.reference_copy) as base, _inputs(layers, found):
            for start in range(0, len(rows), AT_ONCE):
                self.sight.of(base, rows[start : start + AT_ONCE])
        broken = [name for name, moments in found.items() if not moments.isfinite().all()]
        if broken:
            raise RunError(
                "what a layer is given is not finite",
                expected="finite activations",
                got=f"{len(broken)} of {len(found)} layers where they are not, such as {broken[0]}",
                fix="check the model's weights, or take float32",
            )
        return found

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Contrast on forget pictures + lambda x distance on retain pictures; rows without pictures count as 0."""
        total = torch.zeros((), device=self.context.device)
        parts = dict.fromkeys([*(["forget"] if batch.forget else []), *(["retain"] if batch.retain else [])], total)
        if forget := with_pictures(batch.forget):
            now = torch.stack([each.float().mean(0) for each in self.sight.of(model, forget)])
            before = torch.stack([each.float().mean(0) for each in self.sight.before(model, forget)])
            logits = torch.stack([F.cosine_similarity(now, other, dim=-1) for other in (self.somebody.expand_as(now), before)], dim=-1)
            contrast = -F.log_softmax(logits / self.config.temperature, dim=-1)[:, 0]
            parts["forget"] = contrast.sum() / len(batch.forget)
        if (retain := with_pictures(batch.retain)) and self.config.retain_weight:
            parts["retain"] = visual_drift(self.sight.of(model, retain), self.sight.before(model, retain)).sum() / len(batch.retain)
        total = sum(((self.config.retain_weight if name == "retain" else 1.0) * part for name, part in parts.items()), total)
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})


@contextmanager
def _inputs(layers: dict[str, nn.Module], found: dict[str, Tensor]) -> Iterator[None]:
    """Within, add up x x^T of what each layer is given."""

    def hook(name: str) -> Any:
        def call(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            found[name] = found[name] + x.T @ x if name in found else x.T @ x

        return call

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
