r"""VGID: Visual-Noise Guided In-Context Distillation (arXiv 2606.00105).

The teacher is the frozen base itself, looking at a perturbed picture and reading an unlearning instruction before the question:

.. math:: p_T(\cdot | x_f, y_{<t}) = p_{\theta_0}(\cdot | P_\phi(I), u \oplus q, y_{<t})

The student sees the clean picture and the bare question, so that the change ends up in the weights:

.. math:: L = \alpha E_f[mean_t KL(p_T \| p)] + \beta E_r[retain]

where the retain term is KL(p_0 || p), cross-entropy on the recorded answers, or both.

Four settings of ours go beyond the paper, so that a fact that is no longer said is no longer in the weights either
(docs/design/vgid.md says what each does and what it was measured to do):

- `mask_names`: a question without a picture shows its subject by name, so its teacher reads an invented name;
- `guess_penalty`: recorded tokens that whoever never met the subject gives by chance are held down, in the target and by
  :math:`\eta E_f[mean_t max(0, log p(y_t) - b_t)]` with :math:`b_t = max(2 log min(p_T(y_t), p_N(y_t)), -log V)`, where p_N is the teacher
  without the instruction: values of forgotten people would otherwise stay likelier guesses than others;
- `hidden_state_weight`: the student's hidden states follow the teacher's, wherever both read the same words:
  :math:`\lambda E_f[mean_{l,t} \|h_l - h_l^T\|^2 / \|h_l^T\|^2]`;
- `adversary`: the forget term is also asked of the model as a relearning adversary has changed it, who tries to bring facts back.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vgid.data.batching import Batch, EncodedRow
from vgid.data.example import Example
from vgid.data.replay import ReplayConfig, replay_kind
from vgid.instructions import instruction_text
from vgid.losses import Direction, kl_divergence
from vgid.memory import as_many_as_fit
from vgid.methods.base import (
    METHODS,
    Context,
    Method,
    MethodConfig,
    Range,
    Search,
    StepBatch,
)
from vgid.methods.common.targets import Targets
from vgid.methods.common.terms import drift, likelihood
from vgid.methods.engine import Ask, Machine, Plan, Said, Term, View, mean_by_owner, passes
from vgid.methods.vgid.adversary import AdversaryConfig, RelearningAdversary, can_split
from vgid.methods.vgid.names import Names, mask_names, names_in
from vgid.methods.vgid.narrow import OWN, narrow
from vgid.methods.vgid.sampling import sample_answers
from vgid.models.adapters import reference
from vgid.models.structure import base_of, decoder_layers
from vgid.perturbation import NoiseConfig, perturb_batch, perturb_row
from vgid.processes import is_sharded
from vgid.seeds import derive_seed

AnswerSource = Literal["recorded", "teacher", "student"]
TEACHER_BATCH = 128
"""Rows that the teacher answers in one batch before training."""
AT_ONCE = 2**24
"""Numbers of hidden states that are compared in one operation, at most: a layer at a time would start as many kernels for each layer, and
all layers at once would take memory that a step may not have. Chosen by hand."""


class VGIDConfig(MethodConfig):
    """Settings of VGID; the defaults are ours, `paper` is a recipe, and the released script a method (`vgid_released`).

    Attributes:
        noise: how the teacher's picture is perturbed; kind `none` leaves the instruction as the only perturbation.
        redraw: draw the noise anew at every step (the paper), or once per picture.
        instruction: name of a built-in instruction, a text, or null for noise alone.
        alpha: weight of the forget term.
        beta: weight of the retain term.
        retain_loss: `kl` to the base (the paper), `ce` on the recorded answers, or `both`.
        mask_names: questions without a picture are put to the teacher with invented names (ours).
        guess_penalty: weight of the penalty on recorded tokens that are given by chance only, within the forget term; above 0, they are
            held down in the target too (ours).
        hidden_state_weight: weight, within the forget term, of the hidden states' distance from the teacher's at all layers but the last
            (ours).
        adversary: the relearning adversary that the forget term is also asked under (ours); null for none.
        answers: which answers teacher and student are compared on, one entry a step, in turn: `recorded` is the data set's answer (the
            paper), `teacher` one sampled from the teacher, `student` one sampled from the student (on-policy).
        temperature: softmax temperature of both distributions in the forget term.
        direction: `forward` KL(teacher || student) (the paper) or `reverse`.
        self_distilled: questions from the retain set that are asked about each forget picture; the target is what the base says of them
            (ours). They count as replay rows of the kind `seen`, also where `replay` is null.
        augment: retain rows, of those that ask what forget rows ask, that are repeated with their picture mirrored, turned, scaled and
            shifted (ours); 0 where left and right matter.
        replay: what the base is asked, so that it still says it afterwards, where the retain set leaves it open (ours); null for nothing.
    """

    renamed: ClassVar[dict[str, str]] = {
        "names": "mask_names",
        "hold": "guess_penalty",
        "states": "hidden_state_weight",
        "sparring": "adversary.rate (`method.adversary=null` for none)",
        "anchors": "self_distilled",
        "moved": "augment",
        "positions": "the method vgid_released, which compares all positions",
        "alternate": "a setting of the method vgid_released",
    }

    noise: NoiseConfig = NoiseConfig()
    redraw: bool = True
    instruction: str | None = "forget"
    alpha: float = Field(default=2.0, ge=0.0)
    beta: float = Field(default=8.0, ge=0.0)
    retain_loss: Literal["kl", "ce", "both"] = "ce"
    mask_names: bool = True
    guess_penalty: float = Field(default=0.3, ge=0.0)
    hidden_state_weight: float = Field(default=2.0, ge=0.0)
    adversary: AdversaryConfig | None = AdversaryConfig()
    answers: tuple[AnswerSource, ...] = Field(default=("recorded",), min_length=1)
    temperature: float = Field(default=1.0, gt=0.0)
    direction: Direction = "forward"
    self_distilled: int = Field(default=4, ge=0)
    augment: int = Field(default=1000, ge=0)
    replay: ReplayConfig | None = ReplayConfig()

    @property
    def instruction_text(self) -> str | None:
        """The instruction itself."""
        return instruction_text(self.instruction) if self.instruction else None


@METHODS.register("vgid")
class VGID(Method[VGIDConfig]):
    """Distil the frozen base, shown noise and an instruction to forget, into the model that gets neither."""

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
    def self_distilled(self) -> int:
        """As configured."""
        return self.config.self_distilled

    @property
    def augment(self) -> int:
        """As configured."""
        return self.config.augment

    @property
    def replay(self) -> ReplayConfig | None:
        """As configured."""
        return self.config.replay

    @property
    def rows_generated_at_once(self) -> int:
        """Rows of one batch of the teacher's own answers."""
        return TEACHER_BATCH if "teacher" in self.config.answers else 0

    @property
    def teacher_instruction(self) -> str | None:
        """As configured."""
        return self.config.instruction_text

    def prepare(self, model: Any, context: Context) -> None:
        """Let the teacher answer every forget question in its own words, where these are distilled on.

        Done once: the teacher never changes, and all at once is faster than a few rows at every step.
        """
        super().prepare(model, context)
        self._sharded = is_sharded(model)
        replay = self.config.replay
        own = sum(bool(replay_kind(row)) for row in context.retain)
        wanted = replay is not None and replay.narrow and own >= OWN * len(context.retain)
        narrowed = wanted and narrow(model, context.encoder, context.forget, context.retain, context.seed)
        settings = self.config.adversary if can_split(context.forget) else None
        self._adversary = RelearningAdversary(model, context.forget, settings, context.seed, narrow=narrowed) if settings else None
        self._found: dict[int, list[nn.Module]] = {}
        self._own: dict[str, str] = {}
        self._step_answers: dict[str, str] = {}
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

    def state_dict(self) -> dict[str, Tensor]:
        """The adversary, and how the base was asked."""
        parts = {"adversary": self._adversary, "kept": self._kept, **self._taught}
        return {f"{name}/{key}": value for name, part in parts.items() if part for key, value in part.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Bring the adversary back, and ask the base in the same way."""
        for name, part in {"adversary": self._adversary, "kept": self._kept, **self._taught}.items():
            if part:
                part.load_state_dict({key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")})

    def finalize(self, model: Any) -> Any:
        """Without the adversary."""
        if self._adversary is not None:
            self._adversary.remove()
        return model

    # -- the loss --------------------------------------------------------------------------------------------------------

    def machine(self) -> Machine:
        """With the adversary's adapters, and the layers with the hidden states that are compared."""
        layers = self._layers if self.config.hidden_state_weight or self._replayed_states else None
        if self._adversary is None:
            return replace(super().machine(), layers=layers)
        return replace(super().machine(), layers=layers, active=self._adversary.active)

    def _layers(self, model: Any) -> list[nn.Module]:
        """The decoder's layers but the last, or the only one; looked up once for the model in training and once for a frozen copy."""
        if id(model) not in self._found:
            layers = decoder_layers(base_of(model))
            self._found[id(model)] = layers[:-1] or layers
        return self._found[id(model)]

    def model_state(self, step: int, example: Example) -> Hashable:
        """Whether the row is asked of the attacked model."""
        return self._adversary is not None and bool(self._adversary.split(step, (example,))[1])

    def foreseen(self, step: int) -> bool:
        """Unless the teacher's or the student's answers are looked at."""
        return self._source(step) == "recorded"

    def before_step(self, model: Any, batch: StepBatch) -> None:
        """Let the adversary take its step, and sample answers where these are distilled on."""
        self._sharded = is_sharded(model)
        if batch.forget and self.config.alpha:
            self._step_answers = self._answers(model, batch)
            if self._adversary is not None:
                self._adversary.learn(batch.step, partial(self._bring_back, model))

    def _bring_back(self, model: Any, rows: tuple[Example, ...]) -> Tensor:
        """The adversary's loss."""
        return torch.stack([each.total for each in passes(model, Plan([likelihood("adversary", rows)], super().machine()))]).sum()

    def terms(self, batch: StepBatch) -> list[Term]:
        """alpha x forget, for held-out subjects asked of the attacked model, + beta x retain."""
        terms: list[Term] = []
        if batch.forget and self.config.alpha:
            plain, attacked = (batch.forget, ()) if self._adversary is None else self._adversary.split(batch.step, batch.forget)
            sides = ((plain, False), (attacked, True))
            terms += [self._forget(rows, batch, attacked=under) for rows, under in sides if rows]
        if batch.retain and self.config.beta:
            given = tuple(row for row in batch.retain if not replay_kind(row))
            said = tuple(row for row in batch.retain if replay_kind(row))
            kept = [*(self._retain(given) if given else ()), *([self._replayed(said)] if said else ())]
            terms += [replace(each, weight=self.config.beta, among=len(batch.retain)) for each in kept]
        return terms

    def _retain(self, rows: tuple[Example, ...]) -> list[Term]:
        terms = [likelihood("retain", rows)] if self.config.retain_loss != "kl" else []
        if self.config.retain_loss != "ce":
            terms.append(drift("retain", rows, Ask("base", kept=self._kept)))
        return terms

    def _replayed(self, rows: tuple[Example, ...]) -> Term:
        """Divergence from the base on what it said itself, in answers and in hidden states."""
        if self._sharded:
            # Not every process has such rows in a pass, and none could ask the base alone.
            return likelihood("replay", rows)
        weight = self._replayed_states

        def value(student: Said, base: Said) -> Tensor:
            apart = student.mean(kl_divergence(base.logits, student.logits))
            return apart + weight * _inside(student, base) if weight else apart

        base = Ask("base") if weight else Ask("base", kept=self._kept)
        return Term("replay", rows, (Ask("model"), base), value, compare=(0, 1) if weight else None)

    @property
    def _replayed_states(self) -> float:
        return self.config.replay.hidden_state_weight if self.config.replay else 0.0

    def _forget(self, rows: tuple[Example, ...], batch: StepBatch, *, attacked: bool) -> Term:
        """Divergence of the student from the teacher, in answers and in hidden states."""
        source = self._source(batch.step)
        answers = tuple(self._step_answers[row.id] for row in rows) if source != "recorded" else None
        states = self.config.hidden_state_weight
        if self.config.redraw or source == "student" or states:
            teacher = Ask("base", answers, view=self._view(batch.step))
        else:
            teacher = Ask("base", kept=self._taught[source])

        asks = [Ask("model", answers), teacher]
        hold = self.config.guess_penalty > 0 and answers is None
        if hold and self.config.instruction_text:
            asks.append(Ask("base", view=self._view(batch.step, instructed=False)))

        def value(student: Said, base: Said, *uninstructed: Said) -> Tensor:
            config, expected = self.config, base.logits
            if hold:
                bound = guess_bound([base.logits, *(each.logits for each in uninstructed)], student.targets)
                expected = held_down(expected, student.targets, bound)
            values = kl_divergence(expected, student.logits, temperature=config.temperature, direction=config.direction)
            if hold:
                values = values + config.guess_penalty * guess_penalty(student.logits, student.targets, bound)
            apart = student.mean(values)
            return apart + states * _inside(student, base) if states else apart

        compare = (0, 1) if states else None
        return Term("forget", rows, tuple(asks), value, self.config.alpha, len(batch.forget), attacked, compare)

    def _view(self, step: int, *, instructed: bool = True) -> View:
        """How the teacher sees rows at a step: perturbed pictures, invented names, and the instruction, unless it is left out."""
        drawn = step if self.config.redraw else 0

        def encode(example: Example, answer: str) -> EncodedRow:
            (masked,) = self._masked((example,), drawn)
            return perturb_row(
                self.context.encoder,
                masked,
                self.config.noise,
                seed=(self.context.seed, drawn),
                instruction=self.config.instruction_text if instructed else None,
                answer=answer,
            )

        return View(("teacher" if instructed else "uninstructed", drawn), encode)

    def _as_teacher(self, source: AnswerSource, examples: tuple[Example, ...]) -> Batch:
        return self.teacher_batch(examples, 0, [self._own[example.id] for example in examples] if source == "teacher" else None)

    def teacher_batch(self, examples: tuple[Example, ...], step: int, answers: list[str] | None = None) -> Batch:
        """Encode rows as the teacher sees them: perturbed pictures, invented names, and the instruction.

        Args:
            examples: rows.
            step: number of the training step, which the noise follows from.
            answers: answers to append; None takes the recorded ones.

        Returns:
            The batch, on the model's device.
        """
        return perturb_batch(
            self.context.encoder,
            self._masked(examples, step if self.config.redraw else 0),
            self.config.noise,
            seed=(self.context.seed, step if self.config.redraw else 0),
            instruction=self.config.instruction_text,
            answers=answers,
            packing=self.context.packing,
        ).to(self.context.device)

    def _masked(self, examples: tuple[Example, ...], step: object) -> tuple[Example, ...]:
        return mask_names(self._names, examples, (self.context.seed, step)) if self.config.mask_names else examples

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
            self._masked(examples, "answers"),
            self.config.noise,
            seed=(self.context.seed, "answers"),
            instruction=self.config.instruction_text,
            prompts_only=True,
        ).to(self.context.device)


def guess_bound(chances: Sequence[Tensor], targets: Tensor) -> Tensor:
    """How likely a recorded token may be.

    Whoever never met the subject says the token by chance. An instruction, like any text before a question, makes some guesses likelier
    and others less likely, so the smaller of two chances counts, and of it the square, but no less than a blind guess among all tokens: a
    token that anybody would say stays as it is, and one with a chance of 1/20 is held down to 1/400.

    Args:
        chances: logits of whoever never met the subject, `[n, v]` each.
        targets: recorded tokens, `[n]`.

    Returns:
        Log-probabilities `[n]`.
    """
    least = torch.stack([_said(logits, targets) for logits in chances]).amin(dim=0)
    return (2.0 * least).clamp(min=-math.log(chances[0].shape[-1]))


def held_down(logits: Tensor, targets: Tensor, bound: Tensor) -> Tensor:
    """Logits `[n, v]` in which the recorded token's probability is no larger than its bound, and all others keep their proportions."""
    logits = logits.float()
    place = targets[:, None]
    others = logits.scatter(-1, place, -math.inf).logsumexp(dim=-1, keepdim=True)
    most = others + (bound - torch.log1p(-bound.exp()))[:, None]
    return logits.scatter(-1, place, torch.fmin(logits.gather(-1, place), most))


def guess_penalty(logits: Tensor, targets: Tensor, bound: Tensor) -> Tensor:
    """How far the log-probability of each recorded token lies above its bound: nats `[n]`, at least 0."""
    return (_said(logits, targets) - bound).clamp(min=0.0)


def _said(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of tokens, `[n]`."""
    return logits.float().log_softmax(dim=-1).gather(-1, targets[:, None])[:, 0]


def _inside(student: Said, base: Said) -> Tensor:
    """Mean distance of hidden states over layers and aligned positions, `[b]`; 0 for rows without any."""
    if student.states is None or base.states is None or student.state_owners is None:
        return torch.zeros(student.rows, device=student.logits.device)
    together = max(1, AT_ONCE // max(1, student.states[0].numel()))  # layers
    pairs = zip(student.states.split(together), base.states.split(together), strict=True)
    values = torch.cat([_distance(one, other) for one, other in pairs]).mean(dim=0)
    return mean_by_owner(values, student.state_owners, student.rows)


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of hidden states `[l, t, h]` in units of the teacher's squared norm, `[l, t]`."""
    return (ours.float() - theirs.float()).square().sum(dim=-1) / theirs.float().square().sum(dim=-1).clamp(min=1e-12)
