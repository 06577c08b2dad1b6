r"""DUET (Zhong, Yang and Zhu, arXiv 2601.21283): the logits of an instructed teacher, where they are largest.

.. math:: L = E_{f}[\sum_{v \in top_K} huber(z_v(x) - z_{0,v}(u \oplus x))] + \lambda E_r[\sum_{v \in top_K} huber(z_v(x) - z_{0,v}(x))]

z are raw logits where the answer starts, so that questions alone are needed: recorded answers are not compared. The teacher is the frozen
base with an instruction u before the question.

Departures. The paper puts the instruction before retain questions too, because its own names what is to be forgotten and so changes nothing
else; "this person" does, so by default the base reads retain questions as they are (`instruct_retain`), and their term has a weight. The
method is one for language models: pictures are left as they are. K and the number of positions are settings; K = 10 is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.instructions import instruction_text
from vgid.losses import top_logits
from vgid.methods.base import METHODS, Context, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.targets import Targets
from vgid.methods.engine import Ask, Said, Term


class DUETConfig(MethodConfig):
    """Settings of DUET.

    Attributes:
        instruction: name of a built-in instruction, or a text.
        top_k: K, words whose logits are compared.
        positions: `first` compares where the answer starts (the paper), `all` along the recorded answer.
        retain_weight: weight of the retain rows' term.
        instruct_retain: the teacher reads the instruction before retain questions too (the paper).
    """

    instruction: str = Field(default="forget", min_length=1)
    top_k: int = Field(default=10, ge=1)
    positions: Literal["first", "all"] = "first"
    retain_weight: float = Field(default=1.0, ge=0.0)
    instruct_retain: bool = False


@METHODS.register("duet")
class DUET(Method[DUETConfig]):
    """Match the largest logits of the base that reads an instruction to forget, where the answer starts."""

    Config = DUETConfig
    paper = "2601.21283"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 5e-3, log=True),
        "method.top_k": (5, 10, 50, 200),
        "method.positions": ("first", "all"),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    @property
    def teacher_instruction(self) -> str:
        """As configured."""
        return instruction_text(self.config.instruction)

    def teacher_prompts(self, examples: tuple[Example, ...]) -> Batch:
        """The picture as it is, before the instruction and the question."""
        return self.context.encoder.prompts(examples, self.teacher_instruction).to(self.context.device)

    def prepare(self, model: Any, context: Context) -> None:
        """Get ready to keep what the base says, with and without the instruction."""
        super().prepare(model, context)
        rows = [*context.forget, *context.retain]
        self._kept = {"plain": Targets(context.batch, rows), "instructed": Targets(partial(self._batch, self.teacher_instruction), rows)}

    def _batch(self, instruction: str, examples: tuple[Example, ...]) -> Batch:
        context = self.context
        return context.encoder.batch(examples, instruction, packing=context.packing).to(context.device)

    def state_dict(self) -> dict[str, Tensor]:
        """How the base was asked."""
        return {f"{name}/{key}": value for name, kept in self._kept.items() for key, value in kept.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ask it in the same way."""
        for name, kept in self._kept.items():
            kept.load_state_dict({key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")})

    def terms(self, batch: StepBatch) -> list[Term]:
        """The same distance on both sides; a side without rows is left out."""
        terms = [self._term("forget", batch.forget, instructed=True)] if batch.forget else []
        if batch.retain and self.config.retain_weight:
            retain = self._term("retain", batch.retain, instructed=self.config.instruct_retain)
            terms.append(replace(retain, weight=self.config.retain_weight))
        return terms

    def _term(self, part: str, rows: tuple[Example, ...], *, instructed: bool) -> Term:
        def value(said: Said, taught: Said) -> Tensor:
            distance = top_logits(taught.logits, said.logits, self.config.top_k)
            if self.config.positions == "all":
                return said.mean(distance)
            starts = torch.ones_like(said.owners, dtype=torch.bool)
            starts[1:] = said.owners[1:] != said.owners[:-1]
            return said.sum(distance * starts)

        return Term(part, rows, (Ask("model"), Ask("base", kept=self._kept["instructed" if instructed else "plain"])), value)
