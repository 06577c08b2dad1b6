"""The rows that settings are tuned on: a part of the training rows is split off, and asks nothing that a reported split asks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from vgid.data.example import STRANGER, Example
from vgid.demo.data import DemoData
from vgid.seeds import derive_seed
from vgid.settings import ValidationConfig
from vgid.training.validation import split_validation

SPLIT_OFF = ValidationConfig(every=1, share=0.2, rows=64)
"""A fifth of every kind of row, at most 64: enough to tell settings apart by a few percent, and little to miss in training."""


class TuningRows(NamedTuple):
    """Rows for the trials of a search.

    Attributes:
        forget: rows to forget.
        retain: rows to retain.
        splits: rows to score on, named like the reported splits that they stand for.
    """

    forget: list[Example]
    retain: list[Example]
    splits: dict[str, list[Example]]


def split_off_validation(data: DemoData, seed: int) -> TuningRows:
    """Split validation rows off the forget rows and the retain rows.

    Rows that ask a reported split's question about the same images stay among the training rows, and so do rows about strangers.

    Args:
        data: the rows and splits of a seed.
        seed: random seed of the choice.

    Returns:
        Rows to train on, and rows to score on.
    """
    reported = {_question(example) for rows in data.splits.values() for example in rows}
    splits: dict[str, list[Example]] = {}
    for side, rows in (("forget", data.forget), ("retain", data.retain)):
        for kind, each in _by_kind(side, [row for row in rows if _question(row) not in reported]).items():
            splits[kind] = split_validation(each, SPLIT_OFF, derive_seed(seed, "validation", kind))[1]
    taken = {row.id for rows in splits.values() for row in rows}
    return TuningRows(_without(data.forget, taken), _without(data.retain, taken), {kind: rows for kind, rows in splits.items() if rows})


def _by_kind(side: str, rows: Iterable[Example]) -> Mapping[str, list[Example]]:
    kinds: dict[str, list[Example]] = {}
    for row in rows:
        if STRANGER not in row.tags:
            kind = "perception" if "perception" in row.tags else side if row.images else f"{side}_text"
            kinds.setdefault(kind, []).append(row)
    return kinds


def _without(rows: Sequence[Example], ids: set[str]) -> list[Example]:
    return [row for row in rows if row.id not in ids]


def _question(example: Example) -> Hashable:
    return example.question, example.context, tuple(image.read() for image in example.images)
