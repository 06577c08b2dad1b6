r"""VGID: Visual-Noise Guided In-Context Distillation (arXiv 2606.00105).

The teacher is the frozen base itself, looking at a perturbed picture and reading an unlearning instruction before the question:

.. math:: p_T(\cdot | x_f, y_{<t}) = p_{\theta_0}(\cdot | P_\phi(I), u \oplus q, y_{<t})

The student sees the clean picture and the bare question, so that the change ends up in the weights:

.. math:: L = \alpha E_f[mean_t KL(p_T \| p)] + \beta E_r[retain]

where the retain term is KL(p_0 || p), cross-entropy on the recorded answers, or both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.methods.answers import sample_answers
from vgid.methods.base import METHODS, Context, LossOutput, Method, Range, Search, StepBatch, mean_by_shape
from vgid.methods.instructions import INSTRUCTIONS
from vgid.methods.noise import NoiseConfig, perturb_batch
from vgid.methods.targets import Targets
from vgid.models.adapters import reference
from vgid.models.forward import all_logits, answer_logits
from vgid.training.losses import Direction, answer_nll, kl_divergence, mean_over_examples
from vgid.training.memory import as_many_as_fit
from vgid.training.seeds import derive_seed

AnswerSource = Literal["recorded", "teacher", "student"]
TEACHER_BATCH = 128
"""Rows the teacher answers at once."""


class VGIDConfig(BaseModel):
    """Settings of VGID; the defaults are ours, `paper` and `released` are recipes.

    Attributes:
        noise: how the teacher's picture is perturbed; kind `none` leaves the instruction alone at work.
        redraw: draw the noise anew at every step (the paper), or once per picture.
        instruction: name of a built-in instruction, a text of one's own, or None for noise alone.
        alpha: weight of the forget term.
        beta: weight of the retain term.
        retain_loss: `kl` to the base (the paper), `ce` on the recorded answers, or `both`.
        answers: whose answers the teacher and student are compared on: one entry a step, in turn. `recorded` is the data set's answer (the
            paper), `teacher` one sampled from the teacher, `student` one sampled from the student (on-policy).
        temperature: of both distributions in the forget term.
        direction: `forward` KL(teacher || student) (the paper) or `reverse`.
        positions: `answer`, or `all` as in the released code: image, prompt and padding too, summed over positions and divided by the
            number of rows; needs teacher and student prompts of one length, so no instruction.
        alternate: as in the released code, one optimizer step on forget rows, the next on retain rows.
        anchors: questions from the retain set that are asked about each forget picture, and whose answers must stay (ours).
        moved: retain rows, of those that ask what forget rows ask, that come again with their picture mirrored, turned, scaled and
            shifted (ours); 0 where left and right matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: NoiseConfig = NoiseConfig()
    redraw: bool = True
    instruction: str | None = "forget"
    alpha: float = Field(default=1.0, ge=0.0)
    beta: float = Field(default=4.0, ge=0.0)
    retain_loss: Literal["kl", "ce", "both"] = "ce"
    answers: tuple[AnswerSource, ...] = Field(default=("recorded", "teacher"), min_length=1)
    temperature: float = Field(default=1.0, gt=0.0)
    direction: Direction = "forward"
    positions: Literal["answer", "all"] = "answer"
    alternate: bool = False
    anchors: int = Field(default=4, ge=0)
    moved: int = Field(default=800, ge=0)

    def model_post_init(self, _: Any) -> None:
        """Refuse what contradicts itself."""
        if self.positions == "all" and self.instruction:
            raise ValueError("positions=all needs instruction=null: an instruction makes the teacher's prompt longer than the student's")
        if self.positions == "all" and self.retain_loss != "kl":
            raise ValueError("positions=all needs retain_loss=kl")

    @property
    def instruction_text(self) -> str | None:
        """The instruction itself."""
        return INSTRUCTIONS.get(self.instruction, self.instruction) if self.instruction else None


@METHODS.register("vgid")
class VGID(Method[VGIDConfig]):
    """Distil the frozen base, half blinded and told to forget, into the model that is neither."""

    Config = VGIDConfig
    paper = "2606.00105"
    needs = ("retain data", "the untouched base")
    search: ClassVar[Search] = {
        "training.learning_rate": Range(2e-4, 5e-3, log=True),
        "method.beta": Range(1.0, 8.0, log=True),
        "method.retain_loss": ("kl", "ce", "both"),
        "method.answers": (("recorded",), ("teacher",), ("recorded", "teacher"), ("recorded", "student")),
    }

    @property
    def anchors(self) -> int:
        """As configured."""
        return self.config.anchors

    @property
    def moved(self) -> int:
        """As configured."""
        return self.config.moved

    @property
    def packs(self) -> bool:
        """Not where all positions are compared, as in the released code."""
        return self.config.positions == "answer"

    @property
    def separable(self) -> bool:
        """Not where padding is compared too, whose amount depends on the other rows."""
        return self.config.positions == "answer"

    def prepare(self, model: Any, context: Context) -> None:
        """Let the teacher answer every forget question in its own words, where these are distilled on.

        Done once: the teacher never changes, and all at once is faster than a few rows at every step.
        """
        super().prepare(model, context)
        self._own: dict[str, str] = {}
        self._kept = Targets(context.batch)
        self._taught = {source: Targets(partial(self._as_teacher, source)) for source in ("recorded", "teacher")}
        if "teacher" not in self.config.answers:
            return
        with reference(model, copy=context.reference_copy) as base:
            for start in range(0, len(context.forget), TEACHER_BATCH):
                rows = tuple(context.forget[start : start + TEACHER_BATCH])
                seed = derive_seed(context.seed, "teacher", start)
                said = as_many_as_fit(partial(self._said, base, seed), rows)
                self._own |= {row.id: answer for row, answer in zip(rows, said, strict=True)}

    def _said(self, base: Any, seed: int, rows: Sequence[Example]) -> list[str]:
        return sample_answers(base, self.context.encoder.tokenizer, self.teacher_prompts(tuple(rows)), rows, seed)

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """alpha x forget + beta x retain; with `alternate` only one of them, in turn."""
        forget_turn = not self.config.alternate or batch.step % 2 == 0
        retain_turn = not self.config.alternate or batch.step % 2 == 1
        parts: dict[str, Tensor] = {}
        if batch.forget and forget_turn and self.config.alpha:
            parts["forget"] = self._forget(model, batch)
        if batch.retain and retain_turn and self.config.beta:
            parts["retain"] = self._retain(model, batch.retain)
        weights = {"forget": self.config.alpha, "retain": self.config.beta}
        total = sum((weights[name] * part for name, part in parts.items()), torch.zeros((), device=self.context.device))
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    # -- forget ---------------------------------------------------------------------------------------------------------

    def _forget(self, model: Any, batch: StepBatch) -> Tensor:
        said = self._answers(model, batch)

        def divergence(examples: tuple[Example, ...]) -> Tensor:
            answers = [said[example.id] for example in examples] if said else None
            student = self.context.batch(examples, answers)
            with reference(model, copy=self.context.reference_copy) as base:
                target = self._target(base, examples, batch.step, answers)
            values = kl_divergence(
                target, self._logits(model, student), temperature=self.config.temperature, direction=self.config.direction
            )
            return self._reduce(values, student)

        return self._mean(divergence, batch.forget)

    def _target(self, base: Any, examples: tuple[Example, ...], step: int, answers: list[str] | None) -> Tensor:
        """The teacher's logits; worked out once where neither noise nor answers are drawn anew."""
        source = self._source(step)
        if self.config.redraw or source == "student" or self.config.positions == "all":
            return self._logits(base, self.teacher_batch(examples, step, answers))
        return self._taught[source].logits(base, examples)

    def _as_teacher(self, source: AnswerSource, examples: tuple[Example, ...]) -> Batch:
        return self.teacher_batch(examples, 0, [self._own[example.id] for example in examples] if source == "teacher" else None)

    def teacher_batch(self, examples: tuple[Example, ...], step: int, answers: list[str] | None = None) -> Batch:
        """What the teacher sees: perturbed pictures and the instruction; text-only rows have the instruction alone."""
        return perturb_batch(
            self.context.encoder,
            examples,
            self.config.noise,
            seed=(self.context.seed, step if self.config.redraw else 0),
            instruction=self.config.instruction_text,
            answers=answers,
            packing=self.context.packing,
        ).to(self.context.device)

    def _answers(self, model: Any, batch: StepBatch) -> dict[str, str]:
        """What is distilled on, by example; nothing stands for the recorded answers."""
        source = self._source(batch.step)
        if source == "recorded":
            return {}
        if source == "teacher":
            return {example.id: self._own[example.id] for example in batch.forget}
        seed = derive_seed(self.context.seed, "student", batch.step)
        prompts = self.context.encoder.prompts(batch.forget).to(self.context.device)
        said = sample_answers(model, self.context.encoder.tokenizer, prompts, batch.forget, seed)
        return {example.id: answer for example, answer in zip(batch.forget, said, strict=True)}

    def _source(self, step: int) -> AnswerSource:
        return self.config.answers[step % len(self.config.answers)]

    def teacher_prompts(self, examples: tuple[Example, ...]) -> Batch:
        """The teacher's side up to where the answer starts, left padded."""
        return perturb_batch(
            self.context.encoder,
            examples,
            self.config.noise,
            seed=(self.context.seed, "answers"),
            instruction=self.config.instruction_text,
            prompts_only=True,
        ).to(self.context.device)

    # -- retain ---------------------------------------------------------------------------------------------------------

    def _retain(self, model: Any, examples: tuple[Example, ...]) -> Tensor:
        def kept(examples: tuple[Example, ...]) -> Tensor:
            batch = self.context.batch(examples)
            student = self._logits(model, batch)
            total = torch.zeros((), device=student.device)
            if self.config.retain_loss != "kl":
                total = total + self._reduce(answer_nll(student, batch.answers.targets), batch)
            if self.config.retain_loss != "ce":
                with reference(model, copy=self.context.reference_copy) as base:
                    target = self._kept.logits(base, examples) if self.config.positions == "answer" else self._logits(base, batch)
                total = total + self._reduce(kl_divergence(target, student), batch)
            return total

        return self._mean(kept, examples)

    # -- shared ---------------------------------------------------------------------------------------------------------

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        return all_logits(model, batch) if self.config.positions == "all" else answer_logits(model, batch)

    def _mean(self, term: Callable[[tuple[Example, ...]], Tensor], examples: tuple[Example, ...]) -> Tensor:
        # The released code also compares padding, so its rows must stay together.
        return term(examples) if self.config.positions == "all" else mean_by_shape(term, examples)

    def _reduce(self, values: Tensor, batch: Batch) -> Tensor:
        if self.config.positions == "all":
            return values.sum() / len(batch.ids)  # "batchmean" of the released code
        return mean_over_examples(values, batch.owners, len(batch.ids))
