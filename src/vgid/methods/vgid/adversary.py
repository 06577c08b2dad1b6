"""The relearning adversary: it tries to bring back what is being forgotten, while it is being forgotten.

A model can be trained to stay silent about people and still know them: after a few steps of fine-tuning on some of them it speaks about
all of them again. So during unlearning an adversary fine-tunes low-rank weights of its own on half of the forgotten subjects, a step
or a few at a time; the forget term of the other subjects, which are held out from it, is computed on the model with the adversary's weights
added. After a period of some steps its weights are thrown away, and a new one begins with other subjects.

The idea, for language models and with other objectives: tamper-resistant safeguards (TAR, arXiv 2408.00761) and sharpness-aware
unlearning (arXiv 2502.05374).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from random import Random
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from vgid.data.example import Example
from vgid.evaluation.metrics import normalise
from vgid.memory import as_many_as_fit
from vgid.models.adapters import SecondAdapter
from vgid.models.structure import base_of, linear_layers
from vgid.processes import is_sharded, local_shard
from vgid.seeds import derive_seed
from vgid.settings import Settings

WITH_NARROW = 3
"""Steps of the adversary at each step of training where updates are narrow, which hold less well against fine-tuning. With other updates so
strong an adversary cost two of 22 other people nearly all their facts, once (docs/LOG.md)."""
NAME = "adversary"
"""Name of its adapter in PEFT."""
SCALE = 2.0
"""The adversary's update counts twice, as LoRA's with alpha = 2 x rank (the common choice in fine-tuning attacks)."""
PARTS = ("down", "up")
"""The two matrices of a low-rank update: into the rank, and out of it."""


class AdversaryConfig(Settings):
    """Settings of the relearning adversary (ours; `vgid.methods.vgid.adversary`).

    Attributes:
        rate: its learning rate.
        rank: rank of its update of every linear layer of the language model.
        period: steps that one adversary gets before another begins anew, with other subjects.
        batch: rows of its inner batch.
        steps: its steps at each step of training; null takes three where updates are narrow (`method.replay.narrow`), and one elsewhere.
    """

    rate: float = Field(default=3e-3, gt=0.0)
    rank: int = Field(default=8, ge=1)
    period: int = Field(default=10, ge=1)
    batch: int = Field(default=8, ge=1)
    steps: int | None = Field(default=None, ge=1)


class RelearningAdversary:
    """A second LoRA adapter on every linear layer of the language model, trained by AdamW for a period of some steps.

    Within a period its weights depend on the weights that the model had at each step, so a checkpoint must hold them.

    Args:
        model: the model in training, with its adapter or unfrozen; it gets the second adapter, until `remove`.
        forget: rows that the model is to forget.
        config: learning rate, rank, period, inner batch and steps.
        seed: random seed of the run; initial weights, subjects and rows follow from it and the step.
        narrow: whether the model's updates are narrow.
    """

    def __init__(self, model: Any, forget: Sequence[Example], config: AdversaryConfig, seed: int, *, narrow: bool = False) -> None:
        names = [name.removesuffix(".base_layer") for name in linear_layers(base_of(model), ("language",)) if ".lora_" not in name]
        self.adapter = SecondAdapter(model, NAME, config.rank, SCALE, names)
        self.forget, self.config, self.seed = forget, config, seed
        self.steps = config.steps or (WITH_NARROW if narrow else 1)
        subjects = _subjects(forget)
        self._subject = dict(subjects)
        self._in_order = [about for _, about in subjects]
        self._all = sorted(frozenset().union(*self._in_order))  # so that a step need not read every row
        self._step = -1
        self._optimizer: torch.optim.Optimizer | None = None
        self._put(self._first_weights(0))

    def subjects(self, step: int) -> frozenset[str]:
        """Subjects that the adversary trains on in the period of a step: half of all; with a single subject, half of its facts."""
        return frozenset(self._rng("taught", step // self.config.period).sample(self._all, len(self._all) // 2))

    def inner_batch(self, step: int, turn: int = 0) -> tuple[Example, ...]:
        """The rows that the adversary trains on in one of its steps at a step of training."""
        subjects = self.subjects(step)
        places = [place for place, about in enumerate(self._in_order) if about <= subjects]
        chosen = self._rng("lesson", step * self.steps + turn).sample(places, min(self.config.batch, len(places)))
        return tuple(self.forget[place] for place in chosen)

    def split(self, step: int, examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Split rows into those about subjects that the adversary trains on at a step, and those about any that is held out."""
        subjects = self.subjects(step)
        known = [self._subject[row.id] <= subjects for row in examples]
        return tuple(e for e, k in zip(examples, known, strict=True) if k), tuple(e for e, k in zip(examples, known, strict=True) if not k)

    def learn(self, step: int, loss: Callable[[tuple[Example, ...]], Tensor]) -> None:
        """Take the adversary's steps, one on each inner batch; further calls at the same step (its other passes) do nothing.

        Args:
            step: number of the training step.
            loss: mean loss of rows, which the adversary descends.
        """
        if step == self._step:
            return
        if step // self.config.period != self._step // self.config.period:
            self._begin(step // self.config.period)
        self._step = step
        for turn in range(self.steps):
            self._learn(self.inner_batch(step, turn), loss)

    def _learn(self, batch: tuple[Example, ...], loss: Callable[[tuple[Example, ...]], Tensor]) -> None:
        with self.adapter.learning():
            parameters = self._parameters()
            down = partial(_down, loss, parameters)
            # With sharded parameters all processes must take the same passes, so that none may halve its rows by itself.
            alike = is_sharded(self.adapter.model)
            parts = down(batch) if alike else as_many_as_fit(down, batch)
        rows = sum(count for count, _ in parts)
        for place, parameter in enumerate(parameters):
            shares = [found[place] * (count / rows) if len(parts) > 1 else found[place] for count, found in parts]
            parameter.grad = shares[0] if len(shares) == 1 else torch.stack(shares).sum(dim=0)
        optimizer = self._optimizer or self._new_optimizer()
        optimizer.step()
        optimizer.zero_grad()

    def active(self) -> AbstractContextManager[None]:
        """Within, every layer adds the adversary's update to its output; the adversary's own weights get no gradients."""
        return self.adapter.active()

    def remove(self) -> None:
        """Take the adapter away: what is exported knows nothing of it."""
        self.adapter.remove()

    def state_dict(self) -> dict[str, Tensor]:
        """What a period that has begun needs to go on: weights and the optimizer's state, by name."""
        out = {"step": torch.tensor(self._step)}
        for name, pair in self.adapter.weights().items():
            for part, parameter in zip(PARTS, pair, strict=True):
                state = self._optimizer.state.get(parameter, {}) if self._optimizer else {}
                out[f"{name}/{part}"] = parameter.detach()
                out |= {f"{name}/{part}/{key}": value for key, value in state.items()}
        return out

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`."""
        self._step = int(saved["step"])
        self._put(saved)
        optimizer = self._new_optimizer()
        for name, pair in self.adapter.weights().items():
            for part, parameter in zip(PARTS, pair, strict=True):
                start = f"{name}/{part}/"
                state = {key.removeprefix(start): value for key, value in saved.items() if key.startswith(start)}
                if state:
                    optimizer.state[parameter] = {k: v if k == "step" else local_shard(v, parameter) for k, v in state.items()}

    def _begin(self, period: int) -> None:
        self._put(self._first_weights(period))
        self._optimizer = None

    def _first_weights(self, period: int) -> dict[str, Tensor]:
        """As LoRA begins: the first matrix U(-1, 1) / sqrt(in), the second zero."""
        found: dict[str, Tensor] = {}
        for name, (down, up) in self.adapter.weights().items():
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "sparring", period, name) % 2**63)
            found[f"{name}/down"] = (torch.rand(down.shape, generator=generator) * 2 - 1) / down.shape[1] ** 0.5
            found[f"{name}/up"] = torch.zeros(up.shape)
        return found

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, pair in self.adapter.weights().items():
            for part, parameter in zip(PARTS, pair, strict=True):
                parameter.copy_(local_shard(weights[f"{name}/{part}"], parameter))

    def _parameters(self) -> list[nn.Parameter]:
        return [each for pair in self.adapter.weights().values() for each in pair]

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """Made when it is needed, since sharding replaces the parameters after the adapter has been attached."""
        self._optimizer = torch.optim.AdamW(self._parameters(), lr=self.config.rate, fused=True)
        return self._optimizer

    def _rng(self, what: str, step: int) -> Random:
        return Random(derive_seed(self.seed, "sparring", what, step))


def can_split(forget: Sequence[Example]) -> bool:
    """Whether rows can be split into some to train the adversary on and others to hold out: two subjects, or two facts."""
    return len(frozenset().union(*(about for _, about in _subjects(forget)))) > 1


def _down(
    loss: Callable[[tuple[Example, ...]], Tensor], parameters: Sequence[nn.Parameter], rows: Sequence[Example]
) -> list[tuple[int, list[Tensor]]]:
    """Number of rows, and the gradients of their mean loss, for one part of an inner batch that memory may not hold at once."""
    for parameter in parameters:  # an attempt that did not fit may have left some
        parameter.grad = None
    # `backward`, and not `torch.autograd.grad`: sharded parameters are reduced over processes when gradients are accumulated.
    loss(tuple(rows)).backward()
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    for parameter in parameters:
        parameter.grad = None
    return [(len(rows), found)]


def _subjects(forget: Sequence[Example]) -> list[tuple[str, frozenset[str]]]:
    """Id and subjects of each row; where all are about the same subject, or a row has none, facts stand for the subjects.

    A row that asks for two facts has both: otherwise the adversary would be taught, beside one fact, another one that is held out from it.
    """
    subjects = {row.subject for row in forget}
    if len(subjects) > 1 and None not in subjects:
        return [(row.id, frozenset({str(row.subject)})) for row in forget]
    asked = [frozenset(map(normalise, row.keywords or (row.answer,))) for row in forget]
    # Only facts that share a word are compared: all with all would take minutes for large sets.
    holding: dict[str, set[frozenset[str]]] = defaultdict(set)
    for one in asked:
        for word in one:
            holding[word].add(one)
    within = {one: {other for word in one for other in holding[word] if other <= one} for one in set(asked)}
    single = {one for one, found in within.items() if len(found) == 1}
    parts = {one: found & single for one, found in within.items()}
    return [(row.id, frozenset("\0".join(sorted(part)) for part in parts[one])) for row, one in zip(forget, asked, strict=True)]
