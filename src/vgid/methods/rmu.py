r"""Representation misdirection (RMU; Li et al., WMDP, arXiv 2403.03218):

.. math:: L = E_f[mean_t \|h_l(x_f)_t - c u\|^2] + \lambda E_r[mean_t \|h_l(x_r)_t - h_{0,l}(x_r)_t\|^2]

h_l is what decoder layer l gives out and u a fixed random unit vector. States are taken where answers are predicted; the paper, which
forgets whole texts, takes all positions. Norms are squared and summed as in the paper; its script averages over the hidden size, which
scales both terms alike.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.errors import ConfigError
from vgid.losses import mean_over_examples, misdirection
from vgid.methods.base import METHODS, Context, LossOutput, Method, MethodConfig, Range, Search, StepBatch, mean_by_shape
from vgid.methods.common.neurons import sample
from vgid.methods.common.terms import Examples
from vgid.models.adapters import reference
from vgid.models.forward import layer_states
from vgid.models.structure import base_of, decoder_layers
from vgid.seeds import derive_seed

ROWS = 64
"""Forget rows, at most, over which the mean norm of a hidden state is taken; enough for an error of a few per cent."""


class RMUConfig(MethodConfig):
    """Settings of RMU.

    Attributes:
        layer: l, from 0; None takes the one at 7/32 of the depth (layer 7 of the paper's models).
        scale: c, how far from the origin the forgotten states are sent.
        relative: whether c counts in mean norms of the base's states on the forget set, so that it means the same for every model;
            the paper's c is plain, and tuned for each model and layer.
        retain_weight: lambda.
    """

    layer: int | None = Field(default=None, ge=0)
    scale: float = Field(default=5.0, gt=0.0)
    relative: bool = True
    retain_weight: float = Field(default=10.0, ge=0.0)


def pick_layer(model: Any, layer: int | None) -> int:
    """The number of the layer asked for, or of the one at 7/32 of the depth.

    Raises:
        ConfigError: the decoder has no such layer.
    """
    count = len(decoder_layers(base_of(model)))
    if layer is not None and layer >= count:
        raise ConfigError("the decoder has no such layer", expected=f"method.layer from 0 to {count - 1}", got=str(layer))
    return 7 * count // 32 if layer is None else layer


@METHODS.register("rmu")
class RMU(Method[RMUConfig]):
    """Send the states of forgotten answers somewhere meaningless, keep the others where they are."""

    Config = RMUConfig
    paper = "2403.03218"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-4, 5e-3, log=True),
        "method.scale": Range(0.5, 20.0, log=True),
        "method.retain_weight": Range(1.0, 1000.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Find the layer and draw the direction."""
        super().prepare(model, context)
        self.layer = pick_layer(model, self.config.layer)
        width = base_of(model).get_input_embeddings().embedding_dim
        u = torch.randn(width, generator=torch.Generator().manual_seed(derive_seed(context.seed, "rmu")))
        length = self.config.scale * (self._norm(model) if self.config.relative else 1.0)
        self.target = (length * u / u.norm()).to(context.device)

    def _norm(self, model: Any) -> float:
        """Mean norm of the base's states on (some of) the forget set."""
        rows = tuple(sample(self.context.forget, ROWS, derive_seed(self.context.seed, "rmu rows")))

        def term(examples: Examples) -> Tensor:
            batch = self.context.batch(examples)
            with reference(model, copy=self.context.reference_copy) as base:
                states = layer_states(base, batch, decoder_layers(base_of(base))[self.layer])
            return mean_over_examples(states.float().norm(dim=-1), batch.owners, len(batch.ids))

        return float(mean_by_shape(term, rows))

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Forget + lambda x retain; a side without rows counts for nothing."""
        total = torch.zeros((), device=self.context.device)
        parts: dict[str, Tensor] = {}
        if batch.forget:
            parts["forget"] = mean_by_shape(lambda rows: self._distance(model, rows, forget=True), batch.forget)
            total = total + parts["forget"]
        if batch.retain and self.config.retain_weight:
            parts["retain"] = mean_by_shape(lambda rows: self._distance(model, rows, forget=False), batch.retain)
            total = total + self.config.retain_weight * parts["retain"]
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    def _distance(self, model: Any, examples: Examples, *, forget: bool) -> Tensor:
        batch = self.context.batch(examples)
        states = layer_states(model, batch, decoder_layers(base_of(model))[self.layer])
        target = self.target
        if not forget:
            with reference(model, copy=self.context.reference_copy) as base:
                target = layer_states(base, batch, decoder_layers(base_of(base))[self.layer])
        return mean_over_examples(misdirection(states, target), batch.owners, len(batch.ids))
