"""A sparring partner: somebody who tries to bring back what is being forgotten, while it is being forgotten.

A model can be taught to keep silent about people and still know them: a few steps of fine-tuning on some of them, and it speaks about
all of them again. So a partner does just that meanwhile, step by step, with half of the forgotten people and in low-rank weights of its
own; what must be forgotten about the others is asked of the model as the partner has changed it. After a few steps the partner is
forgotten itself, and a new one begins with other people.

The idea, for language models and with other objectives: tamper-resistant safeguards (TAR, arXiv 2408.00761) and sharpness-aware
unlearning (arXiv 2502.05374).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vgid.data.example import Example
from vgid.memory import as_many_as_fit
from vgid.methods.common.terms import gradients
from vgid.models.structure import base_of, linear_layers
from vgid.seeds import derive_seed

RANK, SCALE = 8, 2.0
"""Of the partner's weights in each linear layer of the language model."""
LESSON = 8
"""Rows it is taught in a step."""
BOUT = 10
"""Steps it gets before it is forgotten, and another one begins."""
PARTS = ("down", "up")
Weights = dict[str, tuple[nn.Parameter, nn.Parameter]]


class SparringPartner:
    """Low-rank weights beside every linear layer of the language model, as LoRA has them, trained by AdamW for a bout of some steps.

    Where its bout has begun, what it becomes follows from the weights it met; so its own belong into a checkpoint.

    Args:
        model: being trained.
        forget: what it is to forget.
        learning_rate: of the partner.
        seed: of the partner's choices.
    """

    def __init__(self, model: Any, forget: Sequence[Example], learning_rate: float, seed: int) -> None:
        base = base_of(model)
        names = [name for name in linear_layers(base, ("language",)) if ".lora_" not in name]
        self.layers: dict[str, Any] = {name: base.get_submodule(name) for name in names}
        self.forget, self.learning_rate, self.seed = forget, learning_rate, seed
        whose = _subjects(forget)
        self._whose = dict(whose)
        self._in_order = [who for _, who in whose]  # so that a step need not read every row
        self._step, self._learning, self._aside = -1, False, False
        self._begin(0)

    def taught(self, step: int) -> frozenset[str]:
        """Whom the partner is taught in the bout of a step: half of the people; of a single one, half of the answers."""
        whose = sorted(set(self._whose.values()))
        return frozenset(self._rng("taught", step // BOUT).sample(whose, len(whose) // 2))

    def lesson(self, step: int) -> tuple[Example, ...]:
        """The rows it is taught."""
        taught = self.taught(step)
        places = [place for place, who in enumerate(self._in_order) if who in taught]
        return tuple(self.forget[place] for place in self._rng("lesson", step).sample(places, min(LESSON, len(places))))

    def split(self, step: int, examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Rows about those whom the partner is taught at a step, and all others."""
        taught = self.taught(step)
        known = [self._whose[row.id] in taught for row in examples]
        return tuple(e for e, k in zip(examples, known, strict=True) if k), tuple(e for e, k in zip(examples, known, strict=True) if not k)

    def learn(self, step: int, loss: Callable[[tuple[Example, ...]], Tensor]) -> None:
        """Take a step down the loss on the lesson; once a step, however many passes it has."""
        if step == self._step:
            return
        if step // BOUT != self._step // BOUT:
            self._begin(step // BOUT)
        self._step = step
        parameters = [each for pair in self._weights.values() for each in pair]
        self._learning = True
        try:
            with self.at_work():
                parts = as_many_as_fit(partial(_down, loss, parameters), self.lesson(step))
        finally:
            self._learning = False
        rows = sum(count for count, _ in parts)
        for place, parameter in enumerate(parameters):
            parameter.grad = torch.stack([found[place] * (count / rows) for count, found in parts]).sum(dim=0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Meanwhile every layer gives out what it would with the partner's weights, which themselves get no gradients."""
        hooks = [layer.register_forward_hook(partial(self._add, name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While the partner is at work: a pass it has no part in."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def carried(self) -> dict[str, Tensor]:
        """What a bout that has begun needs to go on: weights and the optimizer's state, by name."""
        out = {"step": torch.tensor(self._step)}
        for name, pair in self._weights.items():
            for part, parameter in zip(PARTS, pair, strict=True):
                out[f"{name}/{part}"] = parameter.detach()
                out |= {f"{name}/{part}/{key}": value for key, value in self._optimizer.state.get(parameter, {}).items()}
        return out

    def take_up(self, carried: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._step = int(carried["step"])
        self._begin(max(0, self._step) // BOUT)
        with torch.no_grad():
            for name, pair in self._weights.items():
                for part, parameter in zip(PARTS, pair, strict=True):
                    start = f"{name}/{part}"
                    parameter.copy_(carried[start])
                    state = {key.removeprefix(f"{start}/"): value for key, value in carried.items() if key.startswith(f"{start}/")}
                    if state:
                        self._optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}

    def _begin(self, bout: int) -> None:
        self._weights: Weights = {}
        for name, layer in self.layers.items():
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "sparring", bout, name) % 2**63)
            down = (torch.rand(RANK, layer.in_features, generator=generator) * 2 - 1) / layer.in_features**0.5
            up = torch.zeros(layer.out_features, RANK)
            device = layer.weight.device
            self._weights[name] = (nn.Parameter(down.to(device)), nn.Parameter(up.to(device)))
        self._optimizer = torch.optim.AdamW([each for pair in self._weights.values() for each in pair], lr=self.learning_rate)

    def _add(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self._aside:
            return output
        down, up = self._weights[name] if self._learning else (each.detach() for each in self._weights[name])
        x = inputs[0]
        return output + SCALE * (x @ down.to(x.dtype).T @ up.to(x.dtype).T).to(output.dtype)

    def _rng(self, what: str, step: int) -> Random:
        return Random(derive_seed(self.seed, "sparring", what, step))


def can_spar(forget: Sequence[Example]) -> bool:
    """Whether there is something to teach, and something else to ask: two people, or two answers."""
    return len({who for _, who in _subjects(forget)}) > 1


def _down(
    loss: Callable[[tuple[Example, ...]], Tensor], parameters: Sequence[Tensor], rows: Sequence[Example]
) -> list[tuple[int, list[Tensor]]]:
    """How many rows, and the gradients of their mean loss: one part of what memory may not hold at once."""
    return [(len(rows), gradients(loss(tuple(rows)), parameters))]


def _subjects(forget: Sequence[Example]) -> list[tuple[str, str]]:
    """The id of each row, and whose it is; where all are about the same subject, or have none, the answer stands for it."""
    subjects = {row.subject for row in forget}
    several = len(subjects) > 1 and None not in subjects
    return [(row.id, str(row.subject) if several else row.answer) for row in forget]
