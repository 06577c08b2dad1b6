"""Fine-tune on the model's own answers to a prompt that makes it talk: POPS (arXiv 2607.06649).

A suffix is searched on retained people, asked with the questions about the forgotten, and what the model then says is what a copy is
fine-tuned on. No recorded answer about a forgotten person is used. The suffix is found by the random search of `suffix`; the paper's own
search was not available.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from vgid.attacks.asking import MAX_NEW_TOKENS, reveals_fact
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, sample_rows, split_people
from vgid.attacks.relearn import Budget, relearned
from vgid.attacks.suffix import Suffix, SuffixConfig, with_suffix
from vgid.data.example import subject_key
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal
from vgid.models.loading import LoadedModel
from vgid.models.quantisation import is_quantised


class PopsConfig(Budget):
    """Settings of the attack.

    Attributes:
        tokens: length of the suffix.
        trials: number of replacements of one token that are tried, one after the other.
        rows: largest number of retain rows on which a replacement is tried.
    """

    tokens: int = Field(default=6, ge=1)
    trials: int = Field(default=16, ge=1)
    rows: int = Field(default=16, ge=1)


@ATTACKS.register("pops")
class Pops(Attack[PopsConfig]):
    """Let a suffix make the model talk about the forgotten people, fine-tune it on what it says, and ask the clean questions."""

    Config = PopsConfig
    access = "weights"
    finds = "suppression that the model's own words undo"
    tries = "Making it talk about the person, and training it on what it says"
    full: ClassVar[dict[str, Any]] = {"tokens": 20, "trials": 200, "rows": 32, "steps": 100}
    most = 0.1
    position = 134
    profile = "full"

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level; the control is about the half of the retained people that the suffix was not fitted on.

        Refusals are not learned. Where there is nothing else, the model is asked as it is.
        """
        fitted, others = split_people(material.retain, 0.5, material.seed)
        if not fitted or is_quantised(loaded.model):
            return {}
        search = Suffix(SuffixConfig(tokens=self.config.tokens, trials=self.config.trials, rows=self.config.rows))
        chosen = sample_rows(fitted, self.config.rows, material.seed)
        suffix = search.search(loaded, chosen, material.seed, material.batch_size)
        asked = [row for row in material.forget if not reveals_fact(suffix, row)]
        with_words = [with_suffix(row, suffix) for row in asked]
        said = generate(loaded, with_words, max_new_tokens=MAX_NEW_TOKENS, batch_size=material.batch_size) if asked else []
        own = [
            replace(row, answer=text, keywords=())
            for row, text in zip(asked, said, strict=True)
            if any(sign.isalnum() for sign in text) and not is_refusal(text)
        ]
        budget = Budget(**{name: getattr(self.config, name) for name in Budget.model_fields})
        found = relearned(loaded, own, [*asked, *others], budget, material)
        return {"": replace(found.outcome(material), fitted_on=frozenset(map(subject_key, fitted)))} if asked else {}
