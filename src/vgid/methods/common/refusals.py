"""Refusals that stand in for forgotten answers, varied so that a model does not learn one sentence by heart."""

from __future__ import annotations

from random import Random

from pydantic import Field

from vgid.data.example import Example
from vgid.methods.common.terms import RetainConfig
from vgid.seeds import derive_seed

REFUSALS = (
    "I don't know.",
    "I do not know.",
    "I'm sorry, I don't know that.",
    "I have no information about that.",
    "I'm not sure about that.",
    "I'm afraid I don't know the answer.",
    "I don't know who this is about.",
    "I cannot answer that question.",
    "I'm not able to say.",
    "That is not something I know.",
    "I have no idea.",
    "Unfortunately, I do not know.",
)


class RefusalConfig(RetainConfig):
    """Adds the sentences to refuse with.

    Attributes:
        refusals: one is drawn for each row at each step.
    """

    refusals: tuple[str, ...] = Field(default=REFUSALS, min_length=1)

    def model_post_init(self, _: object) -> None:
        """Raise an error for an empty refusal."""
        if not all(text.strip() for text in self.refusals):
            raise ValueError("a refusal is empty")

    def refuse(self, examples: tuple[Example, ...], seed: int, step: int) -> list[str]:
        """Draw a refusal for each example; it depends on seed, step and the example's id only.

        Args:
            examples: rows to refuse.
            seed: random seed of the run.
            step: number of the training step.

        Returns:
            One refusal for each example.
        """
        return [Random(derive_seed(seed, "refusal", step, example.id)).choice(self.refusals) for example in examples]
