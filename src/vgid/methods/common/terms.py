"""Terms that several methods share: likelihood of answers, drift from the base, and the retain term of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.batching import Batch
from vgid.data.example import Example
from vgid.losses import answer_nll, kl_divergence, mean_over_examples, sum_over_examples
from vgid.methods.base import Context, LossOutput, Method, MethodConfig, StepBatch, mean_by_shape
from vgid.methods.common.targets import Targets
from vgid.models.adapters import reference
from vgid.models.forward import answer_logits

Examples = tuple[Example, ...]
Score = Callable[[Tensor, Batch, Examples], Tensor]
"""From logits `[n, v]`, their batch and its examples to one value an example, `[b]`."""


def log_likelihood(logits: Tensor, batch: Batch) -> Tensor:
    """Log-probability of each example's answer: summed over its tokens, `[b]`."""
    return -sum_over_examples(answer_nll(logits, batch.answers.targets), batch.owners, len(batch.ids))


def mean_log_likelihood(logits: Tensor, batch: Batch) -> Tensor:
    """The same, averaged over the answer's tokens, `[b]`."""
    ones = sum_over_examples(torch.ones_like(batch.owners, dtype=torch.float32), batch.owners, len(batch.ids))
    return log_likelihood(logits, batch) / ones.clamp(min=1.0)


def nll(model: Any, context: Context, examples: Examples, answers: Sequence[str] | None = None) -> Tensor:
    """Negative log-likelihood of answers, the l of the papers: mean over answer tokens, then over examples.

    Args:
        model: the model in training.
        context: encodes the rows.
        examples: rows.
        answers: answers to score, one for each row; None scores the recorded ones.

    Returns:
        A scalar in nats per token.
    """
    said = dict(zip((e.id for e in examples), answers, strict=True)) if answers is not None else None

    def term(examples: Examples) -> Tensor:
        batch = context.batch(examples, [said[e.id] for e in examples] if said else None)
        return mean_over_examples(answer_nll(answer_logits(model, batch), batch.answers.targets), batch.owners, len(batch.ids))

    return mean_by_shape(term, examples)


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss; zero where it does not depend on a parameter, as the projector's for rows without pictures."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def with_gradient(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Make a scalar with a given value and a given gradient, for methods that do more with gradients than add them up.

    Args:
        value: the scalar's value.
        parameters: what the gradient is taken with respect to.
        gradients: the gradient, one tensor for each parameter and of its shape.

    Returns:
        A scalar whose backward pass adds `gradients` to the parameters.
    """
    total = value.detach()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        total = total + ((parameter - parameter.detach()) * gradient.detach()).sum()
    return total


class RetainConfig(MethodConfig):
    """How the retain set is held.

    Attributes:
        retain_weight: lambda, the weight of the retain term; 0 leaves it out.
        retain_loss: `ce` on the recorded answers, or `kl` to the base.
    """

    retain_weight: float = Field(default=1.0, ge=0.0)
    retain_loss: Literal["ce", "kl"] = "ce"


R = TypeVar("R", bound=RetainConfig)


class ForgetAndRetain(Method[R]):
    """A method whose loss is a forget term plus lambda x a retain term."""

    def prepare(self, model: Any, context: Context) -> None:
        """Get ready to remember what the base says."""
        super().prepare(model, context)
        self._said = Targets(context.batch, [*context.forget, *context.retain])

    def state_dict(self) -> dict[str, Tensor]:
        """How the base was asked."""
        return self._said.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ask it in the same way."""
        self._said.load_state_dict(state)

    def forget(self, model: Any, batch: StepBatch) -> Tensor:
        """The forget term over the step's forget rows."""
        raise NotImplementedError

    def loss(self, model: Any, batch: StepBatch) -> LossOutput:
        """Forget + lambda x retain; a side without rows counts for nothing."""
        total = torch.zeros((), device=self.context.device)
        parts: dict[str, Tensor] = {}
        if batch.forget:
            parts["forget"] = self.forget(model, batch)
            total = total + parts["forget"]
        if batch.retain and self.config.retain_weight:
            ce = self.config.retain_loss == "ce"
            parts["retain"] = nll(model, self.context, batch.retain) if ce else self.drift(model, batch.retain)
            total = total + self.config.retain_weight * parts["retain"]
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    def answers_mean(self, model: Any, examples: Examples, score: Score) -> Tensor:
        """Mean over examples of a score of their recorded answers.

        Args:
            model: the model in training.
            examples: rows.
            score: from logits `[n, v]`, batch and examples to one value for each example, `[b]`.

        Returns:
            A scalar.
        """

        def term(examples: Examples) -> Tensor:
            batch = self.context.batch(examples)
            return score(answer_logits(model, batch), batch, examples).mean()

        return mean_by_shape(term, examples)

    def base_logits(self, model: Any, examples: Examples) -> Tensor:
        """What the untouched base says at the recorded answers of the examples: `[n, v]`, without gradients."""
        with reference(model, copy=self.context.reference_copy) as base:
            return self._said.logits(base, examples)

    def drift(self, model: Any, examples: Examples) -> Tensor:
        """KL(p_0 || p): mean over answer tokens, then over examples."""

        def term(examples: Examples) -> Tensor:
            batch = self.context.batch(examples)
            values = kl_divergence(self.base_logits(model, examples), answer_logits(model, batch))
            return mean_over_examples(values, batch.owners, len(batch.ids))

        return mean_by_shape(term, examples)
