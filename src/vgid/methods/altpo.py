r"""Alternate preference optimisation (AltPO; Mekala et al., arXiv 2409.13474): another plausible answer preferred to the forgotten one.

.. math:: L = -\frac{2}{\beta} E_f[\log \sigma(\beta \log \frac{p(y_a)}{p_0(y_a)} - \beta \log \frac{p(y)}{p_0(y)})] + \lambda \ell(x_r, y)

Before training, the base itself makes up alternative answers y_a, with the recorded answer in front of it; at each step one of a row's is
drawn. The request is worded anew here. Departures: an alternative that still states the fact is dropped, and a row that has none left takes
the answers to the same question about others, then other rows' answers, and at last refusals, so that one row alone can be forgotten too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from vgid.data.example import Example, altered
from vgid.losses import dpo
from vgid.memory import as_many_as_fit
from vgid.methods.base import METHODS, Context, Defaults, Range, Search, StepBatch
from vgid.methods.common.refusals import REFUSALS
from vgid.methods.common.terms import ForgetAndRetain, RetainConfig, answer_log_likelihood
from vgid.methods.engine import Ask, Said, Term
from vgid.methods.vgid.sampling import sample_answers
from vgid.models.adapters import reference
from vgid.seeds import derive_seed
from vgid.texts import key_fact

log = logging.getLogger("vgid")
AT_ONCE = 64
"""Rows for which alternatives are made up in one batch."""
REQUEST = (
    '{question} The answer "{answer}" must not be used. Invent another answer of the same kind, plausible but with every fact changed, '
    "and say nothing else."
)


class AltPOConfig(RetainConfig):
    """Settings of AltPO.

    Attributes:
        beta: inverse temperature.
        alternatives: answers that the base is asked to make up for each row.
        request: what the base is asked; `{question}` and `{answer}` stand for the row's own.
    """

    beta: float = Field(default=0.1, gt=0.0)
    alternatives: int = Field(default=5, ge=1)
    request: str = Field(default=REQUEST, min_length=1)


def others_answers(row: Example, rows: Sequence[Example], count: int, seed: int) -> list[str]:
    """Answers of other rows that can stand in for a row's own.

    Args:
        row: the row to forget.
        rows: rows to take answers from; those that ask the same question come first.
        count: number of answers, at most.
        seed: random seed.

    Returns:
        Different answers that do not state the row's fact; refusals where there are none.
    """
    same = [other.answer for other in rows if other.question == row.question]
    for answers in (same, [other.answer for other in rows], list(REFUSALS)):
        found = sorted({answer for answer in answers if answer.strip() and not key_fact(answer, row.keywords, row.answer)})
        if found:
            return Random(derive_seed(seed, "alternative", row.id)).sample(found, min(count, len(found)))
    return list(REFUSALS)


@METHODS.register("altpo")
class AltPO(ForgetAndRetain[AltPOConfig]):
    """Prefer an answer that the base makes up to the forgotten one."""

    Config = AltPOConfig
    paper = "2409.13474"
    needs = ("retain data", "the untouched base", "alternative answers (made up by the base)")
    defaults: ClassVar[Defaults] = {"training.learning_rate": 2e-5}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-5, 2e-3, log=True),
        "method.beta": Range(0.05, 0.5, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    @property
    def rows_generated_at_once(self) -> int:
        """Rows of one batch of alternatives."""
        return AT_ONCE

    def prepare(self, model: Any, context: Context) -> None:
        """Let the base make up alternatives: a function of seed and rows, so a run that goes on from a checkpoint finds the same."""
        super().prepare(model, context)
        said: dict[str, list[str]] = {row.id: [] for row in context.forget}
        with reference(model, copy=context.reference_copy) as base:
            for start in range(0, len(context.forget), AT_ONCE):
                rows = context.forget[start : start + AT_ONCE]
                for number in range(self.config.alternatives):
                    seed = derive_seed(context.seed, "altpo", start, number)
                    for row, answer in zip(rows, as_many_as_fit(lambda part: self._ask(base, part, seed), rows), strict=True):  # noqa: B023
                        if answer.strip() and answer not in said[row.id] and not key_fact(answer, row.keywords, row.answer):
                            said[row.id].append(answer)
        everyone = [*context.retain, *context.forget]
        alone = [row for row in context.forget if not said[row.id]]
        for row in alone:
            said[row.id] = others_answers(row, everyone, self.config.alternatives, context.seed)
        if alone:
            log.info("for %d of %d rows the base made up no other answer; they take those of other rows", len(alone), len(said))
        self.alternatives = said

    def _ask(self, base: Any, rows: Sequence[Example], seed: int) -> list[str]:
        request = self.config.request
        # `replace`, as a question may hold braces.
        asked = [
            altered(row, question=request.replace("{question}", row.question).replace("{answer}", row.answer.rstrip("."))) for row in rows
        ]
        prompts = self.context.encoder.prompts(asked).to(self.context.device)
        return sample_answers(base, self.context.encoder.tokenizer, prompts, rows, seed)

    def forget(self, batch: StepBatch) -> Term:
        """2/beta x the DPO loss of each forget row."""
        seed = self.context.seed
        drawn = tuple(Random(derive_seed(seed, "altpo", batch.step, row.id)).choice(self.alternatives[row.id]) for row in batch.forget)

        def value(made_up: Said, made_up0: Said, recorded: Said, recorded0: Said) -> Tensor:
            # Outputs that are kept have no owners of their own: they are those of the model at the same answers.
            chosen, chosen0, rejected = (answer_log_likelihood(said) for said in (made_up, made_up0, recorded))
            rejected0 = answer_log_likelihood(recorded._replace(logits=recorded0.logits))
            return 2.0 / self.config.beta * dpo(chosen, chosen0, rejected, rejected0, beta=self.config.beta)

        return Term("forget", batch.forget, (Ask("model", drawn), Ask("base", drawn), Ask("model"), self.base), value)
