"""Membership inference: tell rows that were learned from rows that were not, by how likely the model finds their answers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import ClassVar, Literal

import torch
from pydantic import Field

from vgid.attacks.asking import names_of
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, fact_key
from vgid.attacks.cross_modal import by_name
from vgid.attacks.scores import TokenLosses, mean_loss, token_losses
from vgid.data.example import Example
from vgid.data.names import FIRST_NAMES, LAST_NAMES
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
        strangers: number of people with invented names among whom few people are ranked.
    """

    signals: tuple[Signal, ...] = ("loss", "zlib", "min-k", "min-k++")
    lowest: float = Field(default=0.2, gt=0, le=1)
    strangers: int = Field(default=59, ge=1)


@ATTACKS.register("mia")
class Mia(Attack[MiaConfig]):
    """Score rows by a signal of membership; an audit turns the scores into AUC and TPR at 1 % FPR.

    Signals: LOSS (arXiv 1709.01604), ZLIB (2012.07805), Min-K (2310.16789), Min-K++ (2404.02936) and GradNorm, the norm of the
    gradient by the parameters of the last decoder layer.
    """

    Config = MiaConfig
    access = "scores"
    finds = "forgetting that leaves rows likelier, or less likely, than those nobody ever learned"
    tries = "Looking for signs that it has once seen these facts"
    measures = "membership"
    full: ClassVar = {"signals": ("loss", "zlib", "min-k", "min-k++", "gradnorm")}
    most = 0.5
    required = False
    position = 160

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each signal. The attack needs `material.unseen`.

        Few people are ranked among people with invented names, of whom the same is asked by name and scored with the same answers.
        """
        if material.by_facts:
            return self._among_strangers(loaded, material)
        if not material.unseen:
            return {}
        levels: Outcomes = {}
        for signal, found in self._scores(loaded, [*material.forget, *material.unseen], material.batch_size).items():
            levels[signal] = Outcome({r.id: found[r.id] for r in material.forget}, {r.id: found[r.id] for r in material.unseen}, 0.5)
        return levels

    def _among_strangers(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One row of each fact, by name; the scores of its decoys are those under the invented names, in the same order for all rows."""
        asked: dict[str, tuple[str, list[Example]]] = {}
        for row in material.forget:
            if versions := under_names(row, material, self.config.strangers):
                asked.setdefault(fact_key(row), (row.id, versions))
        if not asked:
            return {}
        rows = [version for _, versions in asked.values() for version in versions]
        levels: Outcomes = {}
        for signal, found in self._scores(loaded, rows, material.batch_size).items():
            scores = {id: [found[each.id] for each in versions] for id, versions in asked.values()}
            levels[signal] = Outcome(
                {id: each[0] for id, each in scores.items()}, {}, 0.5, decoys={id: each[1:] for id, each in scores.items()}
            )
        return levels

    def _scores(self, loaded: LoadedModel, rows: Sequence[Example], batch_size: int) -> dict[str, dict[str, float]]:
        """Scores by signal and row id."""
        scored = token_losses(loaded, rows, batch_size)
        values = {
            signal: gradient_norms(loaded, rows)
            if signal == "gradnorm"
            else [self._signal(signal)(row, each) for row, each in zip(rows, scored, strict=True)]
            for signal in self.config.signals
        }
        return {signal: dict(zip((row.id for row in rows), each, strict=True)) for signal, each in values.items()}

    def _signal(self, signal: Signal) -> Callable[[Example, TokenLosses], float]:
        """The function that computes a signal; every signal is higher for rows that were learned."""
        return {
            "loss": lambda _, each: -mean_loss(each),
            "zlib": lambda row, each: -float(each.losses.sum()) / len(zlib.compress(row.answer.encode())),
            "min-k": lambda _, each: lowest_mean(-each.losses, self.config.lowest),
            "min-k++": lambda _, each: lowest_mean(each.surprise, self.config.lowest),
        }[signal]


def under_names(row: Example, material: Material, count: int) -> list[Example]:
    """A question by name, and the same question about people with invented names, who have first names of the same gender.

    Args:
        row: the row.
        material: gives the person's name and the seed; the names depend on nothing else, so that all rows are about the same people.
        count: number of invented names.

    Returns:
        `count + 1` rows with the recorded answer, the person's own first; none where the name is not known, or where it is what is asked.
    """
    name = names_of(material.about(row.subject)).get(row.subject or "")
    own = list(by_name(row, {row.subject or "": name})) if row.images and name else [row]
    if not name or not own or name.casefold() not in own[0].question.casefold():
        return []
    first = name.split()[0]
    firsts = next((names for names in FIRST_NAMES.values() if first in names), (*FIRST_NAMES["female"], *FIRST_NAMES["male"]))
    rng, invented = Random(f"strangers/{material.seed}/{row.subject}"), [name]
    while len(invented) <= count:
        candidate = f"{rng.choice(firsts)} {rng.choice(LAST_NAMES)}"
        if not {candidate, *candidate.split()} & {*invented, *name.split()}:
            invented.append(candidate)
    question = own[0].question
    versions = [re.sub(re.escape(name), new, question, flags=re.IGNORECASE) for new in invented]
    return [replace(own[0], id=f"{row.id}/{number}", question=text) for number, text in enumerate(versions)]


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
