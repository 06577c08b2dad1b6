"""Is the fact still there inside, where the model does not say it? A linear probe for each layer (cf. tuned lens, arXiv 2303.08112).

Shapes: n rows, h hidden size, k options.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, kind, person, sample_rows, split_people
from vgid.attacks.scores import ANSWERS, alternatives, rank_of_first, value_spans
from vgid.data.example import STRANGER, Example
from vgid.evaluation.inference import by_length, frozen
from vgid.models.forward import several_states
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import find_style
from vgid.models.structure import decoder_layers


class ProbeConfig(Settings):
    """Of a probe.

    Attributes:
        layers: evenly spaced ones, the last among them.
        options: values to choose from, the true one among them.
        rows: about retained people, on which probes are fitted, at most.
        penalty: of the ridge regression, in units of the number of rows.
        shuffles: probes fitted on values of somebody else; what they get is chance.
    """

    layers: int = Field(default=4, ge=1)
    options: int = Field(default=4, ge=2)
    rows: int = Field(default=400, ge=8)
    penalty: float = Field(default=0.1, gt=0)
    shuffles: int = Field(default=4, ge=1)


class Choice(NamedTuple):
    """A row, where its value starts in the answer, and the tokens of the values to choose from, the true one first."""

    row: Example
    start: int
    values: list[list[int]]


@ATTACKS.register("probe")
class Probe(Attack[ProbeConfig]):
    """From the hidden state behind the true beginning of an answer to the value: fitted on half of the retained people, by ridge
    regression on the output embeddings of the value's tokens, and read on people it never saw.
    """

    Config = ProbeConfig
    access = "hidden states"
    finds = "facts that are inside, but kept from being said"
    full: ClassVar = {"layers": 32, "options": 5, "rows": 2000, "shuffles": 16}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each layer. It needs retained people, and values to choose from."""
        forgotten = {person(row) for row in material.forget}
        retained = [row for row in material.known if person(row) not in forgotten and STRANGER not in row.tags]
        fitted_on = {person(row) for row in split_people(retained, 0.5, material.seed)[0]}
        alike = {kind(row) for row in material.forget}
        lessons = sample_rows([r for r in retained if person(r) in fitted_on and kind(r) in alike], self.config.rows, material.seed)
        asked = [row for row in material.everything if person(row) not in fitted_on]
        taught, asked_choices = (self._choices(loaded, rows, material) for rows in (lessons, asked))
        if not taught or not any(person(choice.row) in forgotten for choice in asked_choices):
            return {}
        layers = decoder_layers(loaded.model)
        places = sorted({round((number + 1) * len(layers) / self.config.layers) - 1 for number in range(self.config.layers)} - {-1})
        states = value_states(loaded, [*taught, *asked_choices], [layers[place] for place in places], material.batch_size)
        return {
            f"layer {place + 1} of {len(layers)}": self._read(loaded, taught, asked_choices, found, forgotten, material.seed)
            for place, found in zip(places, states, strict=True)
        }

    def _choices(self, loaded: LoadedModel, rows: Sequence[Example], material: Material) -> list[Choice]:
        made = []
        for row in rows:
            group = [row, *alternatives(row, material.peers(row), self.config.options - 1, material.seed)]
            if len(group) == self.config.options:
                texts = [_answer(loaded, each) for each in group]
                spans = value_spans(texts)
                made.append(Choice(row, spans[0][0], [text[start:stop] for text, (start, stop) in zip(texts, spans, strict=True)]))
        return made

    def _read(
        self, loaded: LoadedModel, taught: Sequence[Choice], asked: Sequence[Choice], states: Tensor, forgotten: set[str], seed: int
    ) -> Outcome:
        head = loaded.model.get_output_embeddings().weight.detach().float().cpu()
        known, unknown = states[: len(taught)], states[len(taught) :]
        right = torch.stack([_embedded(head, choice.values[0]) for choice in taught])  # [n, h]
        hits = _hits(head, ridge(known, right, unknown, self.config.penalty), right.mean(0), asked)
        forget = {choice.row.id: hit for choice, hit in zip(asked, hits, strict=True) if person(choice.row) in forgotten}
        control = {choice.row.id: hit for choice, hit in zip(asked, hits, strict=True) if person(choice.row) not in forgotten}
        guesses = []
        for number in range(self.config.shuffles):
            wrong = right[_shuffled(taught, f"probe/{seed}/{number}")]
            guessed = _hits(head, ridge(known, wrong, unknown, self.config.penalty), right.mean(0), asked)
            guesses.append(fmean(hit for choice, hit in zip(asked, guessed, strict=True) if person(choice.row) in forgotten))
        chance = max(1 / self.config.options, fmean(guesses))
        return Outcome(forget, control, min(chance, 0.99), frozenset(person(choice.row) for choice in taught))


def value_states(loaded: LoadedModel, choices: Sequence[Choice], layers: Sequence[nn.Module], batch_size: int) -> list[Tensor]:
    """For each layer the states `[n, h]` from which the first token of every row's own value is predicted. The model is left as it was."""
    rows = [choice.row for choice in choices]
    out: list[list[Tensor]] = [[torch.empty(0)] * len(rows) for _ in layers]
    with frozen(loaded.model):
        style = find_style(loaded.model, loaded.encoder, rows, ANSWERS)
        for places in by_length(rows, batch_size, style):
            batch = loaded.encoder.batch([rows[place] for place in places], packing=style).to(loaded.model.device)
            owners = batch.owners.tolist()
            firsts = [owners.index(number) + choices[place].start for number, place in enumerate(places)]
            for layer, states in zip(out, several_states(loaded.model, batch, layers), strict=True):
                for place, first in zip(places, firsts, strict=True):
                    layer[place] = states[first].float().cpu()
    return [torch.stack(layer) for layer in out]


def ridge(inputs: Tensor, targets: Tensor, asked: Tensor, penalty: float) -> Tensor:
    """What a linear map with an intercept, fitted from `inputs` to `targets` `[n, h]`, makes of `asked`; inputs are standardised.

    .. math:: W = (X^T X + \\lambda n I)^{-1} X^T Y
    """
    mean, deviation, middle = inputs.mean(0), inputs.std(0).clamp_min(1e-6), targets.mean(0)
    x, y = ((inputs - mean) / deviation).double(), (targets - middle).double()
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ y)
    predicted: Tensor = (((asked - mean) / deviation).double() @ weights).float() + middle
    return predicted


def _hits(head: Tensor, predicted: Tensor, middle: Tensor, asked: Sequence[Choice]) -> list[float]:
    """1 where the true value is nearest, by the angle from the mean of all values."""
    hits = []
    for choice, vector in zip(asked, predicted, strict=True):
        options = torch.stack([_embedded(head, tokens) for tokens in choice.values])  # [k, h]
        likeness = F.cosine_similarity(options - middle, (vector - middle)[None])
        hits.append(float(rank_of_first((-likeness).tolist()) == 1))
    return hits


def _embedded(head: Tensor, tokens: Sequence[int]) -> Tensor:
    mean: Tensor = F.normalize(head[list(tokens)], dim=-1).mean(0)
    return mean


def _answer(loaded: LoadedModel, row: Example) -> list[int]:
    encoded = loaded.encoder.row(row)
    return [int(token) for token in encoded.text["input_ids"][encoded.prompt_length :]]


def _shuffled(choices: Sequence[Choice], seed: str) -> list[int]:
    """Places of the choices, mixed among those of one kind."""
    rng, order = Random(seed), list(range(len(choices)))
    for each in {kind(choice.row) for choice in choices}:
        places = [place for place, choice in enumerate(choices) if kind(choice.row) == each]
        mixed = list(places)
        rng.shuffle(mixed)
        for place, other in zip(places, mixed, strict=True):
            order[place] = other
    return order
