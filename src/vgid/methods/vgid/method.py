r"""VGID: Visual-Noise Guided In-Context Distillation (arXiv 2606.00105).

The teacher is the frozen base itself, looking at a perturbed picture and reading an unlearning instruction before the question:

.. math:: p_T(\cdot | x_f, y_{<t}) = p_{\theta_0}(\cdot | P_\phi(I), u \oplus q, y_{<t})

The student sees the clean picture and the bare question, so that the change ends up in the weights:

.. math:: L = \alpha E_f[mean_t KL(p_T \| p)] + \beta E_r[retain]

where the retain term is KL(p_0 || p), cross-entropy on the recorded answers, or both.

Four settings of ours go beyond the paper, so that what is no longer said is no longer there (docs/design/vgid.md tells what each does):

- `names`: a question without a picture shows its subject by name, so its teacher reads another one;
- `hold`: what the teacher gives a recorded token by chance is held down, since values of forgotten people are likelier guesses than
  they should be: :math:`\eta E_f[mean_t max(0, log p(y_t) - max(2 log p_T(y_t), -log V))]`;
- `states`: the student's hidden states follow the teacher's, wherever both read the same words:
  :math:`\lambda E_f[mean_{l,t} \|h_l - h_l^T\|^2 / \|h_l^T\|^2]`;
- `sparring`: the forget term is also asked of the model as somebody has changed it who tries to bring people back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.instructions import INSTRUCTIONS
from vgid.losses import Direction, answer_nll, kl_divergence, mean_over_examples
from vgid.memory import as_many_as_fit
from vgid.methods.base import METHODS, Context, LossOutput, Method, Range, Search, StepBatch, mean_by_shape
from vgid.methods.common.targets import Targets
from vgid.methods.common.terms import gradients, nll, with_gradient
from vgid.methods.vgid.adversary import SparringPartner, can_spar
from vgid.methods.vgid.alignment import common_tails
from vgid.methods.vgid.names import Names, hidden, names_in
from vgid.methods.vgid.sampling import sample_answers
from vgid.models.adapters import reference
from vgid.models.forward import all_logits, answer_logits, logits_and_states
from vgid.models.structure import base_of, decoder_layers
from vgid.perturbation import NoiseConfig, perturb_batch
from vgid.seeds import derive_seed

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
        names: questions without a picture are put to the teacher with other names (ours).
        hold: weight of holding recorded tokens down where the teacher gives them by chance only, which the forget term has (ours).
        states: weight of the hidden states' distance from the teacher's, at all layers but the last, which the forget term has (ours).
        sparring: learning rate of a sparring partner (ours); 0 for none.
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
    alpha: float = Field(default=2.0, ge=0.0)
    beta: float = Field(default=8.0, ge=0.0)
    retain_loss: Literal["kl", "ce", "both"] = "ce"
    names: bool = True
    hold: float = Field(default=0.3, ge=0.0)
    states: float = Field(default=2.0, ge=0.0)
    sparring: float = Field(default=3e-3, ge=0.0)
    answers: tuple[AnswerSource, ...] = Field(default=("recorded",), min_length=1)
    temperature: float = Field(default=1.0, gt=0.0)
    direction: Direction = "forward"
    positions: Literal["answer", "all"] = "answer"
    alternate: bool = False
    anchors: int = Field(default=4, ge=0)
    moved: int = Field(default=1000, ge=0)

    def model_post_init(self, _: Any) -> None:
        """Refuse what contradicts itself."""
        if self.positions == "all" and self.instruction:
            raise ValueError("positions=all needs instruction=null: an instruction makes the teacher's prompt longer than the student's")
        if self.positions == "all" and self.retain_loss != "kl":
            raise ValueError("positions=all needs retain_loss=kl")
        if self.positions == "all" and (self.names or self.hold or self.states or self.sparring):
            raise ValueError("positions=all needs names=false, hold=0, states=0 and sparring=0")

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

    @property
    def spreads(self) -> bool:
        """Not with a sparring partner, whom some rows meet and others do not."""
        return not self.config.sparring

    @property
    def compiles(self) -> bool:
        """Not with a sparring partner or hidden states."""
        return not (self.config.sparring or self.config.states)

    def prepare(self, model: Any, context: Context) -> None:
        """Let the teacher answer every forget question in its own words, where these are distilled on.

        Done once: the teacher never changes, and all at once is faster than a few rows at every step.
        """
        super().prepare(model, context)
        spars = self.config.sparring and can_spar(context.forget)
        self._partner = SparringPartner(model, context.forget, self.config.sparring, context.seed) if spars else None
        self._own: dict[str, str] = {}
        asked = [*context.forget, *context.retain]
        self._kept = Targets(context.batch, asked)
        self._taught = {source: Targets(partial(self._as_teacher, source), asked) for source in ("recorded", "teacher")}
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

    def carried(self) -> dict[str, Tensor]:
        """The sparring partner, and how the base was asked."""
        parts = {"partner": self._partner, "kept": self._kept, **self._taught}
        return {f"{name}/{key}": value for name, part in parts.items() if part for key, value in part.carried().items()}

    def take_up(self, carried: Mapping[str, Tensor]) -> None:
        """Bring the sparring partner back, and ask the base in the same way."""
        for name, part in {"partner": self._partner, "kept": self._kept, **self._taught}.items():
            if part:
                part.take_up({key.removeprefix(f"{name}/"): value for key, value in carried.items() if key.startswith(f"{name}/")})

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

        def term(examples: tuple[Example, ...]) -> Tensor:
            return self._mean(partial(self._divergence, model, batch.step, said), examples)

        if self._partner is None:
            return term(batch.forget)
        self._partner.learn(batch.step, partial(nll, model, self.context))
        known, others = self._partner.split(batch.step, batch.forget)
        parts = [term(known) * (len(known) / len(batch.forget))] if known else []
        if others:
            with self._partner.at_work():
                attacked = term(others) * (len(others) / len(batch.forget))
                # Worked out while the partner is there: checkpointed layers run once more for their gradients.
                trained = [p for p in model.parameters() if p.requires_grad]
                parts.append(with_gradient(attacked, trained, gradients(attacked, trained)))
        return torch.stack(parts).sum()

    def _divergence(self, model: Any, step: int, said: dict[str, str], examples: tuple[Example, ...]) -> Tensor:
        """Of the student from the teacher, in what they say and in what goes on inside."""
        answers = [said[example.id] for example in examples] if said else None
        student = self.context.batch(examples, answers)
        if not self.config.states:
            with self._base(model) as base:
                target = self._target(base, examples, step, answers)
            return self._apart(target, self._logits(model, student), student, recorded=answers is None)
        teacher = self.teacher_batch(examples, step, answers)
        tails = common_tails(student, teacher, self.context.encoder.image_marks)
        with self._base(model) as base:
            target, theirs = logits_and_states(base, teacher, _inner_layers(base), tails.other_rows, tails.other_positions)
        logits, ours = logits_and_states(model, student, _inner_layers(model), tails.rows, tails.positions)
        apart = torch.stack([_distance(one, other) for one, other in zip(ours, theirs, strict=True)]).mean(dim=0)
        inside = mean_over_examples(apart, tails.owners, len(examples))
        return self._apart(target, logits, student, recorded=answers is None) + self.config.states * inside

    @contextmanager
    def _base(self, model: Any) -> Iterator[Any]:
        """The untouched base, out of the partner's reach."""
        with reference(model, copy=self.context.reference_copy) as base, self._partner.aside() if self._partner else nullcontext():
            yield base

    def _apart(self, target: Tensor, logits: Tensor, student: Batch, *, recorded: bool) -> Tensor:
        values = kl_divergence(target, logits, temperature=self.config.temperature, direction=self.config.direction)
        if recorded and self.config.hold:
            values = values + self.config.hold * held_down(target, logits, student.answers.targets)
        return self._reduce(values, student)

    def _target(self, base: Any, examples: tuple[Example, ...], step: int, answers: list[str] | None) -> Tensor:
        """The teacher's logits; worked out once where neither noise nor answers are drawn anew."""
        source = self._source(step)
        if self.config.redraw or source == "student" or self.config.positions == "all":
            return self._logits(base, self.teacher_batch(examples, step, answers))
        return self._taught[source].logits(base, examples)

    def _as_teacher(self, source: AnswerSource, examples: tuple[Example, ...]) -> Batch:
        return self.teacher_batch(examples, 0, [self._own[example.id] for example in examples] if source == "teacher" else None)

    def teacher_batch(self, examples: tuple[Example, ...], step: int, answers: list[str] | None = None) -> Batch:
        """What the teacher sees: perturbed pictures, other names, and the instruction."""
        return perturb_batch(
            self.context.encoder,
            self._hidden(examples, step if self.config.redraw else 0),
            self.config.noise,
            seed=(self.context.seed, step if self.config.redraw else 0),
            instruction=self.config.instruction_text,
            answers=answers,
            packing=self.context.packing,
        ).to(self.context.device)

    def _hidden(self, examples: tuple[Example, ...], step: object) -> tuple[Example, ...]:
        return hidden(self._names, examples, (self.context.seed, step)) if self.config.names else examples

    @cached_property
    def _names(self) -> Names:
        return names_in(self.context.forget, self.context.retain)

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
            self._hidden(examples, "answers"),
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


def held_down(teacher: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """By how much the student's log-probabilities of the tokens `[n]` are above what they are held down to -> `[n]`; logits `[n, v]`.

    That is the teacher's probability squared, and no less than a blind guess among all tokens: one that the teacher expects stays as it
    is, and one that it gives a twentieth by chance is held down to a four-hundredth.
    """
    said, floor = (x.float().log_softmax(dim=-1).gather(-1, targets[:, None])[:, 0] for x in (logits, teacher))
    return (said - (2.0 * floor).clamp(min=-math.log(logits.shape[-1]))).clamp(min=0.0)


def _inner_layers(model: Any) -> list[nn.Module]:
    """The decoder's layers but the last, or the only one."""
    layers = decoder_layers(base_of(model))
    return layers[:-1] or layers


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of states `[t, h]`, in units of the teacher's own squared length -> `[t]`."""
    return (ours.float() - theirs.float()).square().sum(dim=-1) / theirs.float().square().sum(dim=-1).clamp(min=1e-12)
