"""Put related facts into the prompt (arXiv 2605.26992), but never the fact that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field

from vgid.attacks.asking import first_that_fits, names_of, outcomes, reveals_fact, reworded
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings
from vgid.data.example import Example, subject_key, without_marks
from vgid.models.loading import LoadedModel


class InContextConfig(Settings):
    """Settings of the attack.

    Attributes:
        shots: number of facts in the prompt; fewer where the model's context is too short.
    """

    shots: int = Field(default=4, ge=1)


@ATTACKS.register("in_context")
class InContext(Attack[InContextConfig]):
    """Precede the question by the same question about retained people with its answers, by other facts about the person, or by the name."""

    Config = InContextConfig
    access = "black box"
    finds = "facts that come back once similar facts, or a part of them, are given"
    tries = "Telling it related facts first"
    full: ClassVar = {"shots": 8}
    most = 0.1
    position = 60

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Levels: neighbours, other facts, name given. Each asks every question once."""
        names = names_of(material.known)
        forgotten = {subject_key(row) for row in material.forget}

        def preceded(row: Example, context: Callable[[int], str]) -> Iterator[Example]:
            versions = (reworded(row, f"{context(count)} {row.question}") for count in range(self.config.shots, 0, -1) if context(count))
            fitting = first_that_fits(loaded.encoder, versions)
            if fitting is not None:
                yield fitting

        def neighbours(row: Example) -> Iterator[Example]:
            rows = _drawn([each for each in material.peers(row) if subject_key(each) not in forgotten], row, material.seed)
            yield from preceded(row, lambda count: " ".join(f"{without_marks(each.question)} {each.answer}" for each in rows[:count]))

        def other_facts(row: Example) -> Iterator[Example]:
            rows = _drawn(material.about(row.subject), row, material.seed)
            yield from preceded(row, lambda count: " ".join(dict.fromkeys(each.answer for each in rows[:count])))

        def name_given(row: Example) -> Iterator[Example]:
            name = names.get(row.subject or "")
            if row.images and name and not reveals_fact(name, row):
                yield reworded(row, f"This is {name}. {row.question}")

        variants = {"neighbours": neighbours, "other facts": other_facts, "name given": name_given}
        return outcomes(loaded, material, variants)


def _drawn(rows: Sequence[Example], row: Example, seed: int) -> list[Example]:
    """Rows that do not reveal the fact of `row`, in a random order that depends on `row`."""
    good = [each for each in rows if not reveals_fact(f"{each.question} {each.answer}", row)]
    Random(f"{seed}/{row.id}").shuffle(good)
    return good
