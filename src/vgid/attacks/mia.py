"""Membership inference: can rows that were learned be told from rows nobody learned, by how likely the model finds them?"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings
from vgid.attacks.scores import TokenLosses, mean_loss, token_losses
from vgid.data.example import Example
from vgid.methods.base import Context
from vgid.methods.common.terms import nll
from vgid.models.loading import LoadedModel
from vgid.models.structure import decoder_layers

Signal = Literal["loss", "zlib", "min-k", "min-k++", "gradnorm"]


class MiaConfig(Settings):
    """`signals`: one level each; `lowest`: part of an answer's tokens that Min-K and Min-K++ look at."""

    signals: tuple[Signal, ...] = ("loss", "zlib", "min-k", "min-k++")
    lowest: float = Field(default=0.2, gt=0, le=1)


@ATTACKS.register("mia")
class Mia(Attack[MiaConfig]):
    """LOSS, ZLIB, Min-K (arXiv 2310.16789), Min-K++ (2404.02936) and GradNorm (of the last decoder layer), by AUC and TPR at 1 % FPR."""

    Config = MiaConfig
    access = "scores"
    finds = "forgetting that leaves rows likelier, or less likely, than those nobody ever learned"
    measures = "membership"
    full: ClassVar = {"signals": ("loss", "zlib", "min-k", "min-k++", "gradnorm")}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """It needs rows about people that no model ever met."""
        if not material.unseen:
            return {}
        rows = [*material.forget, *material.unseen]
        scored = token_losses(loaded, rows, material.batch_size)
        levels: Outcomes = {}
        for signal in self.config.signals:
            if signal == "gradnorm":
                values = gradient_norms(loaded, rows)
            else:
                values = [self._signal(signal)(row, each) for row, each in zip(rows, scored, strict=True)]
            found = dict(zip((row.id for row in rows), values, strict=True))
            levels[signal] = Outcome({r.id: found[r.id] for r in material.forget}, {r.id: found[r.id] for r in material.unseen}, 0.5)
        return levels

    def _signal(self, signal: Signal) -> Callable[[Example, TokenLosses], float]:
        """Every signal is higher for rows that were learned."""
        return {
            "loss": lambda _, each: -mean_loss(each),
            "zlib": lambda row, each: -float(each.losses.sum()) / len(zlib.compress(row.answer.encode())),
            "min-k": lambda _, each: lowest_mean(-each.losses, self.config.lowest),
            "min-k++": lambda _, each: lowest_mean(each.surprise, self.config.lowest),
        }[signal]


def lowest_mean(values: torch.Tensor, share: float) -> float:
    """The mean of the lowest `share` of the values `[t]`, at least one."""
    return float(values.sort().values[: max(1, round(share * len(values)))].mean())


def gradient_norms(loaded: LoadedModel, rows: Sequence[Example]) -> list[float]:
    """Minus the norm of the loss's gradient by the parameters of the last decoder layer, row by row; the model is left as it was."""
    model = loaded.model
    parameters = list(decoder_layers(model)[-1].parameters())
    needed = [parameter.requires_grad for parameter in parameters]
    training = model.training
    context = Context(loaded.encoder, (), (), 0, next(model.parameters()).device)
    model.eval()
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        norms = []
        for row in rows:
            gradients = torch.autograd.grad(nll(model, context, (row,)), parameters)
            norms.append(-float(torch.stack([gradient.float().norm() for gradient in gradients]).norm()))
        return norms
    finally:
        model.train(training)
        for parameter, need in zip(parameters, needed, strict=True):
            parameter.requires_grad_(need)
