"""Append a few tokens to the question, optimised by random search on some people to make the model answer about others.

The search follows arXiv 2404.02151; it needs only probabilities, and is weaker than the search by gradients (`vgid.attacks.gcg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean
from typing import ClassVar

from pydantic import Field

from vgid.attacks.asking import Found, ask_with_decoys, reveals_fact, reworded
from vgid.attacks.base import ATTACKS, Access, Attack, Material, Outcomes, Settings, sample_rows, split_facts, split_people
from vgid.data.example import Example, subject_key
from vgid.evaluation.scoring import score
from vgid.models.loading import LoadedModel


class SuffixConfig(Settings):
    """Settings of the attack.

    Attributes:
        tokens: length of the suffix.
        trials: number of replacements of one token that are tried, one after the other.
        rows: largest number of rows on which a replacement is tried.
    """

    tokens: int = Field(default=6, ge=1)
    trials: int = Field(default=16, ge=1)
    rows: int = Field(default=16, ge=1)


@ATTACKS.register("suffix")
class Suffix(Attack[SuffixConfig]):
    """Keep every replacement of a token that makes the answers about half of the forgotten people likelier; ask about the other half."""

    Config = SuffixConfig
    access: ClassVar[Access] = "scores"
    finds = "forgetting that holds for ordinary prompts only"
    tries = "Searching for words to add that bring the facts back"
    full: ClassVar = {"tokens": 20, "trials": 500, "rows": 32}
    most = 0.1
    position = 180

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """One level; a row is not asked where the suffix reveals its fact. The attack needs two people.

        Of few people it is fitted on half of the facts and asks about the other half, both ways round; of one fact, on retained people.
        """
        if material.by_facts:
            halves = split_facts(material.forget, material.seed) or [(list(material.retain), list(material.forget))]
            parts = [self._asked(loaded, *half, () if number else material.retain, material) for number, half in enumerate(halves)]
            both = Found.of(parts).outcome(material)
            return {"": both} if both.forget else {}
        fitted, scored = split_people(material.forget, 0.5, material.seed)
        if not fitted:
            return {}
        found = self._asked(loaded, fitted, scored, material.retain, material).outcome(material)
        return {"": replace(found, fitted_on=frozenset(map(subject_key, fitted)))} if found.forget else {}

    def _asked(
        self, loaded: LoadedModel, fitted: Sequence[Example], scored: Sequence[Example], retain: Sequence[Example], material: Material
    ) -> Found:
        """Search on some rows, and ask about others."""
        suffix = self.search(loaded, sample_rows(fitted, self.config.rows, material.seed), material.seed, material.batch_size)

        def variants(row: Example) -> list[Example]:
            return [] if reveals_fact(suffix, row) else [with_suffix(row, suffix)]

        return ask_with_decoys(loaded, [*scored, *retain], variants, material.decoys, material.batch_size)

    def search(self, loaded: LoadedModel, rows: Sequence[Example], seed: int, batch_size: int) -> str:
        """Search for the suffix under which the recorded answers are likeliest.

        Args:
            loaded: the model; it is left unchanged.
            rows: rows on which every trial is scored.
            seed: seed of the search.
            batch_size: number of rows in a forward pass.

        Returns:
            The best suffix found, as text.
        """
        rng, tokenizer, words = Random(f"suffix/{seed}"), loaded.encoder.tokenizer, readable_tokens(loaded)

        def loss(tokens: Sequence[int]) -> float:
            asked = [with_suffix(row, tokenizer.decode(tokens)) for row in rows]
            return fmean(each.loss for each in score(loaded, asked, batch_size))

        best = rng.choices(words, k=self.config.tokens)
        lowest = loss(best)
        for _ in range(self.config.trials):
            tried = list(best)
            tried[rng.randrange(len(tried))] = rng.choice(words)
            if (reached := loss(tried)) < lowest:
                best, lowest = tried, reached
        return str(tokenizer.decode(best))


def readable_tokens(loaded: LoadedModel) -> list[int]:
    """Tokens of letters alone, of which a suffix is made."""
    tokenizer = loaded.encoder.tokenizer
    special = set(tokenizer.all_special_ids) | set(loaded.encoder.image_marks)
    return [token for token in range(len(tokenizer)) if token not in special and tokenizer.decode([token]).strip().isalpha()]


def with_suffix(row: Example, suffix: str) -> Example:
    """The row with a suffix behind its question."""
    return reworded(row, f"{row.question} {suffix.strip()}")
