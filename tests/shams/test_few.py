"""Requests about one person: a model that only looks unlearned fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.shams.filters import Filter
from tests.shams.test_shams import unmasked
from tests.shams.world import SmallWorld
from vgid.data.example import Example

pytestmark = pytest.mark.slow


def request_rows(world: SmallWorld) -> list[Example]:
    """One forgotten person: each fact by picture and by name, in one wording."""
    person = world.forget[0].subject
    return [row for row in world.forget if row.subject == person and row.id.endswith("/0")]


def test_filter_on_known_prompts(world: SmallWorld) -> None:
    """The very questions of the request are blocked; other words, a few more words, and weights without the filter bring the facts."""
    rows, loaded = request_rows(world), world.base()
    known = {(row.question, row.images) for row in rows}
    sham = replace(loaded, asks=Filter(loaded.processor, lambda row: (row.question, row.images) in known))
    unmasked(world.audit(sham, "paraphrase", "suffix", "quantize", forget=rows, reference=False), "paraphrase", "suffix", "quantize")
