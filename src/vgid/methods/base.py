"""What an unlearning method is: a frozen config and three hooks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor, nn

from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.data.replay import ReplayConfig
from vgid.errors import DataError
from vgid.methods.cutting import WHOLE, Cut
from vgid.methods.engine import Machine, PassLoss, Plan, Term, pass_tokens, passes, whole_loss
from vgid.models.pictures import Pictures
from vgid.registry import Registry
from vgid.settings import Settings

Kind = Literal["trained", "edit", "inference", "reference"]
"""What a method does: trains by a loss; changes weights of its own choice; changes the question only; is compared with."""
Trainable = Literal["adapter", "full"]
"""What can be trained: an adapter on the frozen model, or the model's own parameters."""
Capability = Literal["packing", "splitting", "sharding", "compiling"]
"""What training may do with a method's loss:

- `packing`: questions about one picture share a row (wherever only answer tokens are compared);
- `splitting`: the loss is a mean over forget rows plus a mean over retain rows, each row by itself, so that it can be cut into passes
  that fit into memory, and over processes;
- `sharding`: parameters are spread over processes, all of which then take the same passes, whatever rows they have;
- `compiling`: the decoder's layers are compiled, which code that reaches into layers may not notice.
"""


class Range(NamedTuple):
    """A setting's range in a search; `log` when orders of magnitude matter."""

    low: float
    high: float
    log: bool = False


Defaults = Mapping[str, Any]
"""Settings of a run by dotted key, as `--set` takes them."""
Search = Mapping[str, Range | tuple[Any, ...]]
"""The same keys, to a range or to the values to choose from."""


class MethodConfig(Settings):
    """Base of every method's own settings.

    Attributes:
        name: name of the method in the registry; it says which method the settings are for.
    """

    name: str = ""


class Unsupported(NamedTuple):
    """Why a method, with its settings, does not allow something, and what to set so that it does."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Context:
    """What a method may use besides the model."""

    encoder: Encoder
    forget: Sequence[Example]
    retain: Sequence[Example]
    seed: int
    device: torch.device
    reference_copy: nn.Module | None = None
    """The untouched model, for full-parameter training only; with an adapter the reference is the model with the adapter off."""

    packing: Style | None = None
    """How questions about one picture share a row; None gives each a row of its own."""
    pictures: Pictures | None = None
    """Embeddings of pictures, where vision tower and projector are frozen; None embeds them in every pass."""

    def batch(self, examples: Sequence[Example], answers: Sequence[str] | None = None) -> Batch:
        """Encode examples with their recorded answers, or those given, on the model's device: what every loss starts from."""
        return self.encoder.batch(examples, answers=answers, packing=self.packing).to(self.device)

    def require_retain(self, name: str) -> None:
        """Raises:
        DataError: there is nothing to retain, and the method cannot do without.
        """
        if not self.retain:
            raise DataError(
                f"{name} cannot do without retain data", expected="at least one retain row", got="none", fix="give a retain set"
            )


class StepBatch(NamedTuple):
    """The examples of one optimizer step; either side may be empty."""

    step: int
    forget: tuple[Example, ...]
    retain: tuple[Example, ...]


class LossOutput(NamedTuple):
    """The loss to descend, and its parts for the curves."""

    total: Tensor
    parts: dict[str, Tensor]


def mean_by_shape(term: Callable[[tuple[Example, ...]], Tensor], examples: tuple[Example, ...]) -> Tensor:
    """The mean of a term over examples, worked out for those with pictures and those without apart.

    Padded to the length of a row with pictures, a text-only row would cost as much.
    """
    groups = [tuple(e for e in examples if bool(e.images) is seen) for seen in (True, False)]
    parts = [term(group) * (len(group) / len(examples)) for group in groups if group]
    return torch.stack(parts).sum()


C = TypeVar("C", bound=MethodConfig)


class Method(Generic[C]):
    """Base of all methods. A file in `vgid/methods/` with a class under `@METHODS.register(name)` makes a method.

    A method that trains nothing does its work in `prepare` and `finalize`. The result is always a plain checkpoint: code that loads
    models never sees a method's name.
    """

    Config: ClassVar[type[MethodConfig]]
    kind: ClassVar[Kind] = "trained"
    paper: ClassVar[str] = ""
    """The number on arXiv."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What it needs besides the model and the forget set, in words."""
    trains: ClassVar[bool] = True
    """Whether there is a loss to descend; without one, no adapter is attached and no step is taken."""
    trainable: ClassVar[tuple[Trainable, ...]] = ("adapter", "full")
    """What it can train."""
    defaults: ClassVar[Defaults] = {}
    """Settings of a run that fit the method better than our defaults, by dotted key; from its paper, for real checkpoints."""
    search: ClassVar[Search] = {}
    """What to try when the method is tuned."""

    def __init__(self, config: C) -> None:
        self.config = config

    # -- what training may and must do -----------------------------------------------------------------------------------

    @property
    def self_distilled(self) -> int:
        """Questions about each forget picture that join the retain set, with the base's own answers (`vgid.data.self_distilled`)."""
        return 0

    @property
    def augment(self) -> int:
        """Retain rows that are repeated with their picture transformed (`vgid.data.augmentation`)."""
        return 0

    @property
    def replay(self) -> ReplayConfig | None:
        """What the base is asked for further rows to keep (`vgid.data.replay`); None for nothing."""
        return None

    def unsupported(self) -> Mapping[Capability, Unsupported]:
        """What training must not do with this method's loss, each with the reason and what to set instead."""
        return {}

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at the untouched base; full-parameter training then keeps a frozen copy of it."""
        return True

    @property
    def alternates(self) -> bool:
        """Whether steps take forget and retain rows in turn, each with the next rows of its side, in place of both together."""
        return False

    @property
    def rows_generated_at_once(self) -> int:
        """Rows for which `prepare` generates answers in one batch; 0 for none. The memory estimate counts with it."""
        return 0

    # -- the teacher, for methods that have one --------------------------------------------------------------------------

    @property
    def teacher_instruction(self) -> str | None:
        """Text that the teacher reads before the question; None without a teacher or an instruction."""
        return None

    def teacher_prompts(self, examples: tuple[Example, ...]) -> Batch | None:
        """The teacher's input up to where the answer starts, left padded; None for a method without a teacher."""
        return None

    # -- hooks -----------------------------------------------------------------------------------------------------------

    def prepare(self, model: Any, context: Context) -> None:
        """Called once, before training."""
        self.context = context

    def terms(self, batch: StepBatch) -> Sequence[Term]:
        """The terms of a step's loss: rows, weights, and what is compared with what. The engine turns them into passes.

        Args:
            batch: rows of the step; either side may be empty.

        Returns:
            Terms; their parts, weighted and added up, are the loss.
        """
        raise RuntimeError(f"{type(self).__name__} trains nothing")

    def machine(self) -> Machine:
        """What the engine works with; called after `prepare`."""
        context = self.context
        return Machine(context.encoder, context.device, context.packing, context.reference_copy, pictures=context.pictures)

    def model_state(self, step: int, example: Example) -> Hashable:
        """The state of the model that a forget row meets at a step; rows that meet different ones take different passes."""
        return None

    def before_step(self, model: Any, batch: StepBatch) -> None:
        """Called before the terms of a step are computed; once for each part of a step that is cut into parts."""

    def foreseen(self, step: int) -> bool:
        """Whether the terms of a step follow from (seed, step), so that it can be planned while an earlier step is under way."""
        changing = ("before_step", "passes", "state_dict")
        return self.states_terms and all(getattr(type(self), name) is getattr(Method, name) for name in changing)

    def plan(self, batch: StepBatch, cut: Cut = WHOLE) -> Plan:
        """All of a step that needs no model; see `passes`."""
        return Plan(self.terms(batch), replace(self.machine(), cut=cut))

    def passes(self, model: Any, batch: StepBatch, cut: Cut = WHOLE, plan: Plan | None = None) -> Iterator[PassLoss]:
        """The loss of a step, pass by pass; the caller differentiates each before it asks for the next.

        A method with a `loss` of its own takes one pass.

        Args:
            model: the model in training.
            batch: rows of the step.
            cut: how rows of one kind are cut into passes.
            plan: what `plan` gives for these rows and this cut; None makes it now.

        Yields:
            The loss of each pass.
        """
        if not self.states_terms:
            out = self.loss(model, batch)
            yield PassLoss(out.total, out.parts, attacked=False)
            return
        self.before_step(model, batch)
        yield from passes(model, plan or self.plan(batch, cut))

    def largest_pass(self, batch: StepBatch, cut: Cut) -> int:
        """Tokens of the largest of the passes that `passes` takes, padding included."""
        return max(pass_tokens(self.terms(batch), replace(self.machine(), cut=cut)), default=0)

    @property
    def states_terms(self) -> bool:
        """Whether the loss is stated in terms, so that the engine may put all rows of a step together."""
        return type(self).loss is Method.loss

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """The loss of one step as one scalar; gradients reach trainable parameters only.

        Methods that do more to gradients than add them up override it in place of `terms`.
        """
        self.before_step(model, batch)
        trained = [p for p in model.parameters() if p.requires_grad]
        return LossOutput(*whole_loss(model, self.terms(batch), self.machine(), trained))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors, by name, that later steps depend on and that do not follow from (seed, step); checkpoints keep them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a `state_dict`; called after `prepare` by a run that resumes from a checkpoint."""

    def finalize(self, model: Any) -> Any:
        """Called once, after training; returns the model to export."""
        return model

    def make_encoder(self, processor: Any) -> Encoder | None:
        """How questions are put to the result, for methods that work at inference; None asks them unchanged."""
        return None


METHODS: Registry[type[Method[Any]]] = Registry(
    "method", group="vgid.methods", base=Method, must={"Config": MethodConfig, "kind": get_args(Kind)}
)
"""Unlearning methods by name."""
