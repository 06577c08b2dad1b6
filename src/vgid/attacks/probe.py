"""Read the fact from hidden states, where the model does not say it: a linear probe for each layer (cf. tuned lens, arXiv 2303.08112).

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

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome, Outcomes, Settings, kind, sample_rows, split_people
from vgid.attacks.scores import ANSWERS, alternatives, beaten, rank_of_first, value_spans
from vgid.data.example import STRANGER, Example, subject_key
from vgid.evaluation.inference import by_length, frozen
from vgid.models.forward import several_states
from vgid.models.loading import LoadedModel
from vgid.models.packing_check import find_style
from vgid.models.structure import decoder_layers


class ProbeConfig(Settings):
    """Settings of the attack.

    Attributes:
        layers: number of decoder layers that are probed: evenly spaced, the last one among them.
        options: number of values to choose from, including the true one.
        rows: largest number of rows about retained people to fit on.
        penalty: ridge penalty, in units of the number of rows.
        shuffles: number of probes fitted on exchanged values; their success is chance.
    """

    layers: int = Field(default=4, ge=1)
    options: int = Field(default=4, ge=2)
    rows: int = Field(default=400, ge=8)
    penalty: float = Field(default=0.1, gt=0)
    shuffles: int = Field(default=4, ge=1)


class ProbeItem(NamedTuple):
    """A row to fit on or to score.

    Attributes:
        row: the row.
        start: index of the first token of the value, counted from the beginning of the answer.
        values: token ids of the values to choose from, the true one first.
    """

    row: Example
    start: int
    values: list[list[int]]


@ATTACKS.register("probe")
class Probe(Attack[ProbeConfig]):
    """Predict the value of a fact from the hidden state behind the true beginning of the answer.

    Probes are ridge regressions from that state to the output embeddings of the value's tokens, fitted on half of the retained people. A
    fact counts as recovered where the true value is the nearest of the options. Chance is the success of probes fitted on exchanged
    values, and at least that of guessing.
    """

    Config = ProbeConfig
    access = "hidden states"
    finds = "facts that are inside, but kept from being said"
    tries = "Reading the fact from its inner states"
    full: ClassVar = {"layers": 32, "options": 5, "rows": 2000, "shuffles": 16}
    most = 0.15
    position = 100

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level for each layer. The attack needs retained people to fit on, and enough values to choose from."""
        forgotten = {subject_key(row) for row in material.forget}
        retained = [row for row in material.known if subject_key(row) not in forgotten and STRANGER not in row.tags]
        fitted_on = {subject_key(row) for row in split_people(retained, 0.5, material.seed)[0]}
        kinds = {kind(row) for row in material.forget}
        candidates = [row for row in retained if subject_key(row) in fitted_on and kind(row) in kinds]
        training = self._items(loaded, sample_rows(candidates, self.config.rows, material.seed), material)
        scored = self._items(loaded, [row for row in material.everything if subject_key(row) not in fitted_on], material)
        if not training or not any(subject_key(item.row) in forgotten for item in scored):
            return {}
        layers = decoder_layers(loaded.model)
        places = sorted({round((number + 1) * len(layers) / self.config.layers) - 1 for number in range(self.config.layers)} - {-1})
        states = value_states(loaded, [*training, *scored], [layers[place] for place in places], material.batch_size)
        return {
            f"layer {place + 1} of {len(layers)}": self._read(loaded, training, scored, found, forgotten, material.seed)
            for place, found in zip(places, states, strict=True)
        }

    def _items(self, loaded: LoadedModel, rows: Sequence[Example], material: Material) -> list[ProbeItem]:
        """The rows with their options; rows with too few options are left out."""
        items = []
        for row in rows:
            group = [row, *material.decoys.get(row.id, ())]
            if len(group) == 1:
                group += alternatives(row, material.peers(row), self.config.options - 1, material.seed)
            if len(group) >= self.config.options:
                encoded = [loaded.encoder.row(each) for each in group]
                texts = [[int(token) for token in each.text["input_ids"][each.prompt_length :]] for each in encoded]
                spans = value_spans(texts)
                items.append(ProbeItem(row, spans[0][0], [text[start:stop] for text, (start, stop) in zip(texts, spans, strict=True)]))
        return items

    def _read(
        self,
        loaded: LoadedModel,
        training: Sequence[ProbeItem],
        scored: Sequence[ProbeItem],
        states: Tensor,
        forgotten: set[str],
        seed: int,
    ) -> Outcome:
        """Fit a probe on the states `[n, h]` of one layer (training items first), and score it."""
        head = loaded.model.get_output_embeddings().weight.detach().float().cpu()
        known, unknown = states[: len(training)], states[len(training) :]
        right = torch.stack([_embedded(head, item.values[0]) for item in training])  # [n, h]
        predicted = ridge(known, right, unknown, self.config.penalty)
        if any(len(item.values) > self.config.options for item in scored):  # decoys: few people
            ranks = [beaten((-each).tolist()) for each in _likeness(head, predicted, right.mean(0), scored)]
            found = {item.row.id: rank for item, rank in zip(scored, ranks, strict=True)}
            about = {item.row.id for item in scored if subject_key(item.row) in forgotten}
            return Outcome(
                {id: rank[0] for id, rank in found.items() if id in about},
                {id: rank[0] for id, rank in found.items() if id not in about},
                0.5,
                frozenset(subject_key(item.row) for item in training),
                decoys={id: rank[1:] for id, rank in found.items() if id in about},
            )
        hits = _hits(head, predicted, right.mean(0), scored)
        forget = {item.row.id: hit for item, hit in zip(scored, hits, strict=True) if subject_key(item.row) in forgotten}
        control = {item.row.id: hit for item, hit in zip(scored, hits, strict=True) if subject_key(item.row) not in forgotten}
        guesses = []
        for number in range(self.config.shuffles):
            wrong = right[_shuffled(training, f"probe/{seed}/{number}")]
            guessed = _hits(head, ridge(known, wrong, unknown, self.config.penalty), right.mean(0), scored)
            guesses.append(fmean(hit for item, hit in zip(scored, guessed, strict=True) if subject_key(item.row) in forgotten))
        chance = max(1 / self.config.options, fmean(guesses))
        return Outcome(forget, control, min(chance, 0.99), frozenset(subject_key(item.row) for item in training))


def value_states(loaded: LoadedModel, items: Sequence[ProbeItem], layers: Sequence[nn.Module], batch_size: int) -> list[Tensor]:
    """Collect the hidden states from which the first token of each row's own value is predicted. The model is left unchanged.

    Args:
        loaded: the model.
        items: rows, each with the place of its value.
        layers: decoder layers to read.
        batch_size: number of rows in a forward pass.

    Returns:
        States `[n, h]` for each layer, float32, on the CPU, in the order of the items.
    """
    rows = [item.row for item in items]
    out: list[list[Tensor]] = [[torch.empty(0)] * len(rows) for _ in layers]
    with frozen(loaded.model):
        style = find_style(loaded.model, loaded.encoder, rows, ANSWERS)
        for places in by_length(rows, batch_size, style):
            batch = loaded.encoder.batch([rows[place] for place in places], packing=style).to(loaded.model.device)
            owners = batch.owners.tolist()
            firsts = [owners.index(number) + items[place].start for number, place in enumerate(places)]
            for layer, states in zip(out, several_states(loaded.model, batch, layers), strict=True):
                for place, first in zip(places, firsts, strict=True):
                    layer[place] = states[first].float().cpu()
    return [torch.stack(layer) for layer in out]


def ridge(inputs: Tensor, targets: Tensor, asked: Tensor, penalty: float) -> Tensor:
    """Fit a linear map with an intercept by ridge regression on standardised inputs, and apply it.

    .. math:: W = (X^T X + \\lambda n I)^{-1} X^T Y

    Args:
        inputs: states to fit on, `[n, h]`.
        targets: what to predict from them, `[n, d]`.
        asked: states to apply the map to, `[m, h]`.
        penalty: the factor lambda, in units of the number of rows n.

    Returns:
        Predictions `[m, d]`.
    """
    mean, deviation, middle = inputs.mean(0), inputs.std(0).clamp_min(1e-6), targets.mean(0)
    x, y = ((inputs - mean) / deviation).double(), (targets - middle).double()
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ y)
    predicted: Tensor = (((asked - mean) / deviation).double() @ weights).float() + middle
    return predicted


def _hits(head: Tensor, predicted: Tensor, middle: Tensor, items: Sequence[ProbeItem]) -> list[float]:
    """1 where the true value is the nearest option; else 0."""
    return [float(rank_of_first((-likeness).tolist()) == 1) for likeness in _likeness(head, predicted, middle, items)]


def _likeness(head: Tensor, predicted: Tensor, middle: Tensor, items: Sequence[ProbeItem]) -> list[Tensor]:
    """How near each option `[k]` is to the prediction, by the angle seen from the mean `[h]` of all values."""
    near = []
    for item, vector in zip(items, predicted, strict=True):
        options = torch.stack([_embedded(head, tokens) for tokens in item.values])  # [k, h]
        near.append(F.cosine_similarity(options - middle, (vector - middle)[None]))
    return near


def _embedded(head: Tensor, tokens: Sequence[int]) -> Tensor:
    """The mean `[h]` of the normalised output embeddings of some tokens."""
    mean: Tensor = F.normalize(head[list(tokens)], dim=-1).mean(0)
    return mean


def _shuffled(items: Sequence[ProbeItem], seed: str) -> list[int]:
    """A permutation of the items that exchanges only items of the same kind."""
    rng, order = Random(seed), list(range(len(items)))
    for each in dict.fromkeys(kind(item.row) for item in items):  # not a set: its order differs between processes
        places = [place for place, item in enumerate(items) if kind(item.row) == each]
        mixed = list(places)
        rng.shuffle(mixed)
        for place, other in zip(places, mixed, strict=True):
            order[place] = other
    return order
