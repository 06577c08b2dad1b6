"""Membership inference: tell rows that were learned from rows that were not, by how likely the model finds their answers."""

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
    """Settings of the attack.

    Attributes:
        signals: the signals of membership, one level each.
        lowest: share of an answer's tokens, in (0, 1], that Min-K and Min-K++ average over.
    """

    signals: tuple[Signal, ...] = ("loss", "zlib", "min-k", "min-k++")
    lowest: float = Field(default=0.2, gt=0, le=1)


@ATTACKS.register("mia")
class Mia(Attack[MiaConfig]):
    """Score rows by a signal of membership; an audit turns the scores into AUC and TPR at 1 % FPR.

    Signals: LOSS (arXiv 1709.01604), ZLIB (2012.07805), Min-K (2310.16789), Min-K++ (2404.02936) and GradNorm, the norm of the
    gradient by the parameters of the last decoder layer.
    """

    Config = MiaConfig
    access = "scores"
    finds = "forgetting that leaves rows likelier, or less likely, than those nobody ever learned"
    measures = "membership"
    full: ClassVar = {"signals": ("loss", "zlib", "min-k", "min-k++", "gradnorm")}
    most = 0.5
    required = False
    position = 160

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each signal. The attack needs `material.unseen`."""
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
        """The function that computes a signal; every signal is higher for rows that were learned."""
        return {
            "loss": lambda _, each: -mean_loss(each),
            "zlib": lambda row, each: -float(each.losses.sum()) / len(zlib.compress(row.answer.encode())),
            "min-k": lambda _, each: lowest_mean(-each.losses, self.config.lowest),
            "min-k++": lambda _, each: lowest_mean(each.surprise, self.config.lowest),
        }[signal]


def lowest_mean(values: torch.Tensor, share: float) -> float:
    """The mean of the lowest `share` of the values `[t]`, and of at least one of them."""
    return float(values.sort().values[: max(1, round(share * len(values)))].mean())


def gradient_norms(loaded: LoadedModel, rows: Sequence[Example]) -> list[float]:
    """Measure the gradient of each row's loss by the parameters of the last decoder layer; the model is left unchanged.

    Returns:
        Minus the L2 norm for each row, in the order given.
    """
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
