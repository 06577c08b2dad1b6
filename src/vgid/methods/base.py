"""What an unlearning method is: a frozen config and three hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from vgid.data.batching import Batch, Encoder
from vgid.data.example import Example
from vgid.data.packing import Style
from vgid.errors import DataError
from vgid.registry import Registry

Kind = Literal["trained", "edit", "inference", "reference"]
"""What a method does: trains by a loss; changes weights of its own choice; changes the question only; is compared with."""
Ways = Literal["adapter", "full"]


class Range(NamedTuple):
    """A setting's range in a search; `log` when orders of magnitude matter."""

    low: float
    high: float
    log: bool = False


Settings = Mapping[str, Any]
"""Settings of a run by dotted key, as `--set` takes them."""
Search = Mapping[str, Range | tuple[Any, ...]]
"""The same keys, to a range or to the values to choose from."""


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


C = TypeVar("C", bound=BaseModel)


class Method(Generic[C]):
    """Base of all methods. One file and one `@METHODS.register(name)` line make a method.

    A method that trains nothing does its work in `prepare` and `finalize`. What comes out is always a plain checkpoint: loaders never
    know method names.
    """

    Config: ClassVar[type[BaseModel]]
    kind: ClassVar[Kind] = "trained"
    paper: ClassVar[str] = ""
    """The number on arXiv."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What it needs besides the model and the forget set, in words."""
    trains: ClassVar[bool] = True
    """Whether there is a loss to descend; without, no adapter is attached and no step is taken."""
    ways: ClassVar[tuple[Ways, ...]] = ("adapter", "full")
    """What it can train."""
    defaults: ClassVar[Settings] = {}
    """Settings of a run that fit the method better than our defaults, by dotted key."""
    search: ClassVar[Search] = {}
    """What to try when the method is tuned."""

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def anchors(self) -> int:
        """Questions about each forget picture that join the retain set, with the base's own answers; see `vgid.data.self_distilled`."""
        return 0

    @property
    def moved(self) -> int:
        """Retain rows that come again with their picture moved; see `vgid.data.augmentation`."""
        return 0

    @property
    def packs(self) -> bool:
        """Whether questions about one picture may share a row: wherever only answer tokens are compared."""
        return True

    @property
    def separable(self) -> bool:
        """Whether the loss is a mean over forget rows plus a mean over retain rows, each row by itself.

        Such a loss can be taken apart: into passes that fit into memory, and over processes.
        """
        return True

    @property
    def spreads(self) -> bool:
        """Whether parameters may be spread over processes: all of them then take the same passes, whatever rows they have."""
        return True

    @property
    def compiles(self) -> bool:
        """Whether layers may be compiled: not where a loss reaches into them, which compiled code may pass over in silence."""
        return True

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at the untouched base; full-parameter training then keeps a frozen copy of it."""
        return True

    def prepare(self, model: Any, context: Context) -> None:
        """Called once, before training."""
        self.context = context

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """The loss of one step; gradients reach trainable parameters only."""
        raise RuntimeError(f"{type(self).__name__} trains nothing")

    def carried(self) -> dict[str, Tensor]:
        """Tensors, by name, that later steps of training depend on and that do not follow from (seed, step): checkpoints keep them."""
        return {}

    def take_up(self, carried: Mapping[str, Tensor]) -> None:
        """Called after `prepare` by a run that goes on from a checkpoint, with what was `carried`."""

    def finalize(self, model: Any) -> Any:
        """Called once, after training; gives the model to export."""
        return model

    def asks(self, processor: Any) -> Encoder | None:
        """How questions are put to the result, for methods that work at inference; None asks them as they are."""
        return None


METHODS: Registry[type[Method[Any]]] = Registry(
    "method", group="vgid.methods", base=Method, must={"Config": BaseModel, "kind": get_args(Kind)}
)
