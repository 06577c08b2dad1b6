r"""Single image unlearning (SIU; Li et al., arXiv 2405.12523): answers about somebody else, without a pull back to the forgotten name.

.. math:: L = E_f[\alpha \ell(x_f, y') + \beta D(y')] + \lambda E_r[\alpha \ell(x_r, y) + \beta D(y)], \quad
          D = mean_t K_t \sum_{v \notin M} p_0 (\log p_0 - \log p)

y' is the answer with an invented name, or a refusal where the answer holds no name. D is the dual masked divergence from the base: K_t is
0 at the tokens that were changed (elsewhere the base is still right), and M are the words of the forgotten names, which must be free to
fall.

The paper lets a language model write new descriptions of one picture for each concept, and trains a few steps on them. Here the answers of
the forget set are rewritten, whatever its pictures; names are those in the questions without a picture about the same subject, and the
subject itself. Rows whose subject is asked about by name nowhere are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vgid.data.example import Example
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.losses import answer_nll, masked_kl
from vgid.methods.base import METHODS, Context, Defaults, Method, MethodConfig, Range, Search, StepBatch
from vgid.methods.common.refusals import REFUSALS
from vgid.methods.common.targets import Targets
from vgid.methods.engine import Ask, Said, Term
from vgid.methods.vgid.names import names_in
from vgid.seeds import derive_seed


class SIUConfig(MethodConfig):
    """Settings of SIU.

    Attributes:
        likelihood_weight: alpha.
        divergence_weight: beta.
        retain_weight: lambda; the paper mixes both sides in one set, which is 1.
        refusals: answers where there is no name to replace; one is drawn for each row.
    """

    likelihood_weight: float = Field(default=0.9, ge=0.0)
    divergence_weight: float = Field(default=0.75, ge=0.0)
    retain_weight: float = Field(default=1.0, ge=0.0)
    refusals: tuple[str, ...] = Field(default=REFUSALS, min_length=1)


def changed(new: Sequence[int], old: Sequence[int]) -> list[bool]:
    """Which tokens of an answer are not those of another one, read from both ends.

    Args:
        new: tokens of the answer.
        old: tokens of the other one.

    Returns:
        One value for each token of `new`; False for the beginning and the end that both have in common.
    """
    shorter = min(len(new), len(old))
    before = next((i for i in range(shorter) if new[i] != old[i]), shorter)
    after = next((i for i in range(shorter - before) if new[-1 - i] != old[-1 - i]), shorter - before)
    return [before <= i < len(new) - after for i in range(len(new))]


@METHODS.register("siu")
class SIU(Method[SIUConfig]):
    """Learn an invented name or a refusal in place of the answer, and stay near the base at all other words."""

    Config = SIUConfig
    paper = "2405.12523"
    needs = ("retain data", "the untouched base", "refusals (built in)")
    defaults: ClassVar[Defaults] = {"training.learning_rate": 3e-4}
    search: ClassVar[Search] = {
        "training.learning_rate": Range(1e-4, 5e-3, log=True),
        "method.divergence_weight": Range(0.1, 5.0, log=True),
        "method.retain_weight": Range(0.5, 8.0, log=True),
    }

    def prepare(self, model: Any, context: Context) -> None:
        """Rewrite the answers."""
        super().prepare(model, context)
        names = names_in(context.forget, context.retain)
        words: dict[str, list[str]] = {}
        for row in context.forget:
            if row.subject:
                found = names.of(row.question) if not row.images else []
                words.setdefault(row.subject, []).extend(w for w in (*names.of(row.subject), *found) if w not in words.get(row.subject, []))
        self.answers = {row.id: self._rewritten(row, words.get(row.subject or "", [])) for row in context.forget}
        self._left_out = self._tokens(sorted({word for each in words.values() for word in each}), model)
        rewritten = [replace(row, answer=self.answers[row.id]) for row in context.forget]
        self._said = Targets(context.batch, [*rewritten, *context.retain])

    def _rewritten(self, row: Example, words: Sequence[str]) -> str:
        """The answer with an invented name, or a refusal."""
        rng = Random(derive_seed(self.context.seed, "siu", row.subject))
        first = rng.choice([name for group in FIRST_NAMES.values() for name in group if name not in words])
        last = rng.choice([name for name in LAST_NAMES if name not in words])
        others = {word: first if place == 0 else last for place, word in enumerate(words)}
        pattern = "|".join(rf"\b{re.escape(word)}\b" for word in words)
        if pattern and re.search(pattern, row.answer):
            return re.sub(pattern, lambda found: others[found.group()], row.answer)
        return Random(derive_seed(self.context.seed, "siu", row.id)).choice(self.config.refusals)

    def _tokens(self, words: Sequence[str], model: Any) -> Tensor:
        """Which words of the vocabulary are parts of the forgotten names, bool `[v]`."""
        out = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        tokenizer = self.context.encoder.tokenizer
        for text in (form for word in words for form in (word, f" {word}")):
            out[tokenizer(text, add_special_tokens=False)["input_ids"]] = True
        return out.to(self.context.device)

    def state_dict(self) -> dict[str, Tensor]:
        """How the base was asked."""
        return self._said.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Ask it in the same way."""
        self._said.load_state_dict(state)

    def terms(self, batch: StepBatch) -> list[Term]:
        """Both sides in the same way; a side without rows is left out."""
        sides = (("forget", batch.forget, 1.0), ("retain", batch.retain, self.config.retain_weight))
        return [replace(self._term(part, rows), weight=weight) for part, rows, weight in sides if rows and weight]

    def _term(self, part: str, rows: tuple[Example, ...]) -> Term:
        encoder, forgotten = self.context.encoder, part == "forget"
        told = tuple(replace(row, answer=self.answers[row.id]) for row in rows) if forgotten else rows
        masks: list[list[bool]] = []
        for new, old in zip(told, rows, strict=True):
            tokens = [(row := encoder.row(each)).text["input_ids"][row.prompt_length :].tolist() for each in (new, old)]
            masks.append([not other for other in changed(*tokens)] if forgotten else [True] * len(tokens[0]))

        def value(said: Said, base: Said) -> Tensor:
            kept = torch.tensor([mask for place in said.places for mask in masks[place]], device=self.context.device)
            apart = masked_kl(base.logits, said.logits, self._left_out) * kept
            values = self.config.likelihood_weight * answer_nll(said.logits, said.targets) + self.config.divergence_weight * apart
            return said.mean(values)

        return Term(part, told, (Ask("model"), Ask("base", kept=self._said)), value)
