r"""MIP-Editor: influential neuron paths (Li et al., arXiv 2511.06793): find them, cut them, and train them anew.

For every forget row looked at, the `top_k` best neurons of each block on its path (`vgid.methods.common.paths`) are edited:
those of the vision tower for rows with pictures, those of the language model for rows without, or for all where there are none
without. They are taken out, then they alone are trained by

.. math:: L = \ell_r + E_f[mean_t \|h_l - \lambda \|h_{0,l}\| u\|^2] + \gamma E_r[mean_t \|h_l - h_{0,l}\|^2]

with a random unit vector u for each forget row (RMisU). A neuron is taken out by its way back to the hidden state: were its other
weights zeroed too, no gradient could ever reach it. The released script fixes one u and one norm for all rows and leaves l_r out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.errors import RunError
from vgid.losses import mean_over_examples, misdirection
from vgid.methods.base import METHODS, Context, Defaults, LossOutput, Method, MethodConfig, Range, Search, StepBatch, mean_by_shape
from vgid.methods.common.neurons import sample, silence
from vgid.methods.common.paths import locate
from vgid.methods.common.terms import Examples, nll
from vgid.methods.engine import gradients, with_gradient
from vgid.methods.rmu import pick_layer
from vgid.models.adapters import reference
from vgid.models.forward import layer_states
from vgid.models.structure import MLP, decoder_layers, feed_forward
from vgid.seeds import derive_seed

log = logging.getLogger("vgid")


class MIPEditorConfig(MethodConfig):
    """Settings of MIP-Editor.

    Attributes:
        top_k: neurons of each block that are edited, for each row looked at.
        frames: m, the steps of the integral.
        rows: forget rows with pictures, and without, that are drawn by the seed to find paths, at most.
        parts: where neurons are edited.
        layer: l, from 0; None takes the one at 7/32 of the depth.
        scale: lambda, in norms of the base's state.
        retain_weight: gamma.
    """

    top_k: int = Field(default=5, ge=1)
    frames: int = Field(default=10, ge=1)
    rows: int = Field(default=16, ge=1)
    parts: tuple[Literal["language", "vision"], ...] = Field(default=("language", "vision"), min_length=1)
    layer: int | None = Field(default=None, ge=0)
    scale: float = Field(default=5.0, gt=0.0)
    retain_weight: float = Field(default=1.0, ge=0.0)


@METHODS.register("mip_editor")
class MIPEditor(Method[MIPEditorConfig]):
    """Take out the neurons along the paths of forgotten answers and let only them learn anew."""

    Config = MIPEditorConfig
    kind = "edit"
    paper = "2511.06793"
    needs = ("retain data", "the untouched base", "gradients of neurons")
    trainable = ("full",)
    defaults: ClassVar[Defaults] = {"adapter": None, "training.learning_rate": 5e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(5e-5, 5e-3, log=True),
        "method.top_k": (3, 5, 10),
        "method.scale": Range(1.0, 10.0),
        "method.retain_weight": Range(0.1, 10.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Find the neurons, take them out, and freeze all others.

        Raises:
            DataError: retain data is missing.
            RunError: no neuron was found.
        """
        super().prepare(model, context)
        context.require_retain("mip_editor")
        self.layer = pick_layer(model, self.config.layer)
        training = model.training
        model.eval()
        self.chosen: dict[str, Tensor] = {}
        blocks = {part: [block for block in feed_forward(model, self.config.parts) if block.part == part] for part in self.config.parts}
        for part in self.config.parts:
            self._find(model, blocks[part], part)
        model.train(training)
        edited = [block for part in self.config.parts for block in blocks[part] if block.name in self.chosen]
        if not edited:
            raise RunError(
                "no influential neuron was found",
                expected="forget rows that the parts in question run on",
                got=f"none for {', '.join(self.config.parts)}",
                fix="set method.parts to language, or give forget rows with pictures",
            )
        for block in edited:
            silence(block, self.chosen[block.name])
        self._freeze(model, edited)

    def _find(self, model: Any, blocks: Sequence[MLP], part: str) -> None:
        for row in self._rows(part):
            encoded = self.context.encoder.row(row)
            one, copies = (self.context.encoder.collate([encoded] * n).to(self.context.device) for n in (1, self.config.frames))
            for place, neurons in locate(model, one, copies, blocks, self.config.top_k).items():
                name = blocks[place].name
                before = self.chosen.get(name, neurons.new_zeros(0))
                self.chosen[name] = torch.cat([before, neurons]).unique()
        count = sum(len(self.chosen[block.name]) for block in blocks if block.name in self.chosen)
        log.info("editing %d of %d neurons in the %s part", count, sum(block.width for block in blocks), part)

    def _rows(self, part: str) -> list[Example]:
        seen = [row for row in self.context.forget if bool(row.images) is (part == "vision")]
        rows = seen or (list(self.context.forget) if part == "language" else [])
        return sample(rows, self.config.rows, derive_seed(self.context.seed, "mip", part))

    def _freeze(self, model: Any, edited: Sequence[MLP]) -> None:
        """Let the weights of the chosen neurons be trained, and no others."""
        model.requires_grad_(False)
        masks: dict[Tensor, Tensor] = {}
        for block in edited:
            neurons = self.chosen[block.name]
            masks[block.down.weight] = _mask(block.down.weight, 1, neurons)
            for up in block.ups:
                rows = neurons if up.out_features == block.width else torch.cat([neurons, neurons + block.width])
                masks |= {p: _mask(p, 0, rows) for p in (up.weight, up.bias) if p is not None}
        for parameter in masks:
            parameter.requires_grad = True
        self.parameters, self.masks = list(masks), list(masks.values())

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Retain + forget + gamma x drift; gradients reach the chosen neurons only."""
        parts: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.context.device)
        if batch.forget:
            parts["forget"] = mean_by_shape(lambda rows: self._misdirect(model, rows), batch.forget)
            total = total + parts["forget"]
        if batch.retain:
            parts["retain"] = nll(model, self.context, batch.retain)
            parts["drift"] = mean_by_shape(lambda rows: self._drift(model, rows), batch.retain)
            total = total + parts["retain"] + self.config.retain_weight * parts["drift"]
        masked = [g * mask for g, mask in zip(gradients(total, self.parameters), self.masks, strict=True)]
        return LossOutput(with_gradient(total, self.parameters, masked), {name: part.detach() for name, part in parts.items()})

    def _misdirect(self, model: Any, examples: Examples) -> Tensor:
        batch, (states, before) = self._states(model, examples)
        target = self.config.scale * before.norm(dim=-1, keepdim=True) * self._directions(examples, before)[batch.owners]
        return mean_over_examples(misdirection(states, target), batch.owners, len(batch.ids))

    def _drift(self, model: Any, examples: Examples) -> Tensor:
        batch, (states, before) = self._states(model, examples)
        return mean_over_examples(misdirection(states, before), batch.owners, len(batch.ids))

    def _states(self, model: Any, examples: Examples) -> tuple[Batch, tuple[Tensor, Tensor]]:
        """What layer l gives out now and gave out before, `[n, h]`."""
        batch = self.context.batch(examples)
        states = layer_states(model, batch, decoder_layers(model)[self.layer])
        with reference(model, copy=self.context.reference_copy) as base:
            before = layer_states(base, batch, decoder_layers(base)[self.layer])
        return batch, (states, before)

    def _directions(self, examples: Examples, like: Tensor) -> Tensor:
        """A unit vector for each example, `[b, h]`: a function of the seed and its id."""
        seeds = (derive_seed(self.context.seed, "mip", example.id) for example in examples)
        u = torch.stack([torch.randn(like.shape[-1], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        return F.normalize(u, dim=-1).to(like)

    @torch.no_grad()
    def finalize(self, model: Any) -> Any:
        """Put all other weights back to the bit, whatever an optimizer's decay has done to them."""
        copy = self.context.reference_copy
        assert copy is not None
        before = dict(copy.named_parameters())
        masks = {id(p): mask for p, mask in zip(self.parameters, self.masks, strict=True)}
        for name, parameter in model.named_parameters():
            if id(parameter) in masks:
                parameter.copy_(torch.where(masks[id(parameter)], parameter, before[name]))
        return model


def _mask(parameter: Tensor, dimension: int, places: Tensor) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.bool).index_fill(dimension, places, True)
