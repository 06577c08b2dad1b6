"""What settings are tuned on: a part of the training rows that is cut off, and asks nothing that is reported."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from vgid.data.example import STRANGER, Example
from vgid.demo.run import Data
from vgid.seeds import derive_seed
from vgid.settings import ValidationConfig
from vgid.training.validation import split_validation

CUT = ValidationConfig(every=1, share=0.2, rows=64)
"""Of every kind of row a fifth, at most 64."""


class Validation(NamedTuple):
    """Rows to train on, and the splits to score on, named as the reported ones that they stand for."""

    forget: list[Example]
    retain: list[Example]
    splits: dict[str, list[Example]]


def cut(data: Data, seed: int) -> Validation:
    """Cut a validation part off the forget and the retain rows.

    Rows whose question, with these very pictures, is asked in a reported split stay among the training rows, and so do those about
    strangers.
    """
    reported = {_question(example) for rows in data.splits.values() for example in rows}
    splits: dict[str, list[Example]] = {}
    for side, rows in (("forget", data.forget), ("retain", data.retain)):
        for kind, each in _by_kind(side, [row for row in rows if _question(row) not in reported]).items():
            splits[kind] = split_validation(each, CUT, derive_seed(seed, "validation", kind))[1]
    aside = {row.id for rows in splits.values() for row in rows}
    return Validation(_without(data.forget, aside), _without(data.retain, aside), {kind: rows for kind, rows in splits.items() if rows})


def _by_kind(side: str, rows: Iterable[Example]) -> Mapping[str, list[Example]]:
    kinds: dict[str, list[Example]] = {}
    for row in rows:
        if STRANGER not in row.tags:
            kind = "perception" if "perception" in row.tags else side if row.images else f"{side}_text"
            kinds.setdefault(kind, []).append(row)
    return kinds


def _without(rows: Sequence[Example], aside: set[str]) -> list[Example]:
    return [row for row in rows if row.id not in aside]


def _question(example: Example) -> Hashable:
    return example.question, tuple(image.read() for image in example.images)
