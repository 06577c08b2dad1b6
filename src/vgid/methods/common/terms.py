"""Terms that several methods share: likelihood of answers, drift from the base, and the retain term of a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field
from torch import Tensor

from vgid.data.example import Example
from vgid.losses import answer_nll, kl_divergence, mean_over_examples
from vgid.methods.base import Context, Method, MethodConfig, StepBatch, mean_by_shape
from vgid.methods.common.targets import Targets
from vgid.methods.engine import Ask, Said, Term
from vgid.models.forward import answer_logits

Examples = tuple[Example, ...]


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
    """A method with a loss of a forget term plus lambda x a retain term."""

    forget_uses_base: ClassVar[bool] = True
    """Whether the forget term looks at the untouched base."""

    @property
    def needs_reference(self) -> bool:
        """For the forget term, or for KL on the retain set."""
        return self.forget_uses_base or self.config.retain_loss == "kl"

    def prepare(self, model: Any, context: Context) -> None:
        """Get ready to keep what the base says."""
        super().prepare(model, context)
        self._said = Targets(context.batch, [*context.forget, *context.retain])

    def state_dict(self) -> dict[str, Tensor]:
        """How the base was asked."""
        return self._said.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Ask it in the same way."""
        self._said.load_state_dict(state)

    @property
    def base(self) -> Ask:
        """What the untouched base says at the recorded answers, kept from step to step."""
        return Ask("base", kept=self._said)

    def forget(self, batch: StepBatch) -> Term:
        """The forget term over the step's forget rows, called `forget`."""
        raise NotImplementedError

    def terms(self, batch: StepBatch) -> list[Term]:
        """Forget + lambda x retain; a side without rows is left out."""
        terms = [self.forget(batch)] if batch.forget else []
        if batch.retain and self.config.retain_weight:
            ce = self.config.retain_loss == "ce"
            retain = likelihood("retain", batch.retain) if ce else drift("retain", batch.retain, self.base)
            terms.append(replace(retain, weight=self.config.retain_weight))
        return terms


def likelihood(part: str, rows: Examples, answers: tuple[str, ...] | None = None, *, sign: float = 1.0) -> Term:
    """Term of the negative log-likelihood of answers, l of the papers: mean over answer tokens, then over rows.

    Args:
        part: name of the part of the loss.
        rows: rows of the term.
        answers: answers to score, one for each row; None scores the recorded ones.
        sign: factor of every value, -1 for ascent.

    Returns:
        The term, in nats per token.
    """

    def value(said: Said) -> Tensor:
        return sign * said.mean(answer_nll(said.logits, said.targets))

    return Term(part, rows, (Ask("model", answers),), value)


def drift(part: str, rows: Examples, base: Ask) -> Term:
    """Term of KL(p_0 || p) at recorded answers: mean over answer tokens, then over rows.

    Args:
        part: name of the part of the loss.
        rows: rows of the term.
        base: how the base is asked.

    Returns:
        The term, in nats per token.
    """

    def value(said: Said, before: Said) -> Tensor:
        return said.mean(kl_divergence(before.logits, said.logits))

    return Term(part, rows, (Ask("model"), base), value)


def answer_log_likelihood(said: Said) -> Tensor:
    """Log-probability of each row's answer, summed over its tokens, `[b]`."""
    return -said.sum(answer_nll(said.logits, said.targets))
