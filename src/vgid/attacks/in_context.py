"""Facts in the prompt that lead to the one that is asked (arXiv 2605.26992); never that one itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import ClassVar

from pydantic import Field

from vgid.attacks.asking import first_that_fits, names_of, outcome, reveals_fact, reworded
from vgid.attacks.base import ATTACKS, Attack, Material, Outcomes, Settings, person
from vgid.data.example import Example
from vgid.models.loading import LoadedModel


class InContextConfig(Settings):
    """`shots`: facts in the prompt, fewer where the model's context is too short."""

    shots: int = Field(default=4, ge=1)


@ATTACKS.register("in_context")
class InContext(Attack[InContextConfig]):
    """Levels: the same question about retained people with its answers; other facts about the person; the name."""

    Config = InContextConfig
    access = "black box"
    finds = "facts that come back once their like, or a part of them, is told"
    full: ClassVar = {"shots": 8}

    def run(self, loaded: LoadedModel, material: Material) -> Outcomes:
        """Every level asks each question once."""
        names = names_of(material.known)
        forgotten = {person(row) for row in material.forget}

        def told(row: Example, lead: Callable[[int], str]) -> Iterator[Example]:
            versions = (reworded(row, f"{lead(count)} {row.question}") for count in range(self.config.shots, 0, -1) if lead(count))
            fitting = first_that_fits(loaded.encoder, versions)
            if fitting is not None:
                yield fitting

        def neighbours(row: Example) -> Iterator[Example]:
            rows = _drawn([each for each in material.peers(row) if person(each) not in forgotten], row, material.seed)
            yield from told(row, lambda count: " ".join(f"{each.question} {each.answer}" for each in rows[:count]))

        def partly(row: Example) -> Iterator[Example]:
            own = _drawn(material.about(row.subject), row, material.seed)
            yield from told(row, lambda count: " ".join(dict.fromkeys(each.answer for each in own[:count])))

        def named(row: Example) -> Iterator[Example]:
            name = names.get(row.subject or "")
            if row.images and name and not reveals_fact(name, row):
                yield reworded(row, f"This is {name}. {row.question}")

        ways = {"neighbours": neighbours, "other facts": partly, "name given": named}
        found = {level: outcome(loaded, material, way) for level, way in ways.items()}
        return {level: each for level, each in found.items() if each is not None}


def _drawn(rows: Sequence[Example], row: Example, seed: int) -> list[Example]:
    """Rows in an order of the row's own, those that give its fact away left out."""
    good = [each for each in rows if not reveals_fact(f"{each.question} {each.answer}", row)]
    Random(f"{seed}/{row.id}").shuffle(good)
    return good
