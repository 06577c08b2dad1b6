"""A step in parts: which rows go through the model together, in which process, and with which weight.

The loss of a step is a mean over its forget rows plus a mean over its retain rows. So it is also the sum over parts of either side of
(rows of the part / rows of the side) x (mean over the part), and the parts may be as small, and lie in as many processes, as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

from vgid.data.example import Example
from vgid.methods.base import StepBatch

T = TypeVar("T")


class Part(NamedTuple):
    """Rows of one side of a step, and the weight of their loss in the loss of the step."""

    batch: StepBatch
    weight: float


def parts_of(
    batch: StepBatch,
    most: int | None = None,
    rank: int = 0,
    count: int = 1,
    *,
    together: bool = False,
    state: Callable[[int, Example], Hashable] | None = None,
) -> list[Part]:
    """The parts of a step for one process of `count`.

    Args:
        batch: all rows of the step, of a loss that can be taken apart.
        most: rows in a part, at most; None puts all rows of a kind together.
        rank: number of the process.
        count: number of processes.
        together: every process gets as many parts of every kind as the others; one that has no row left takes a neighbour's, with
            weight 0. With sharded parameters, no process can take a pass alone.
        state: from step and forget row to the state of the model that it meets; rows of different states take passes of their own anyway,
            and with `together` they are parts of their own, so that every process takes as many passes in each state. None where
            there is one state.

    Returns:
        The parts of this process, in order.
    """
    if count == 1 and (most is None or max(len(batch.forget), len(batch.retain)) <= most):
        sides = (batch._replace(retain=()), batch._replace(forget=()))  # one after the other: half of what is kept for the way back
        return [Part(side, 1.0) for side in sides if side.forget or side.retain]
    parts = []
    for side, rows in (("forget", batch.forget), ("retain", batch.retain)):
        # Rows with pictures and without, apart: padded to one length, the latter would cost as much.
        for kind in (True, False):
            group = [row for row in rows if bool(row.images) is kind]
            for alike in _by_state(group, batch.step, state) if together and state and side == "forget" else [group]:
                for mine in _share(alike, most, rank, count):
                    if mine or together:
                        seen = tuple(mine or alike[:1])
                        one = StepBatch(batch.step, seen, ()) if side == "forget" else StepBatch(batch.step, (), seen)
                        parts.append(Part(one, len(mine) / len(rows)))
    return parts


def _by_state(group: Sequence[Example], step: int, state: Callable[[int, Example], Hashable]) -> list[list[Example]]:
    found: dict[Hashable, list[Example]] = {}
    for row in group:
        found.setdefault(state(step, row), []).append(row)
    return list(found.values())


def _share(group: Sequence[Example], most: int | None, rank: int, count: int) -> list[Sequence[Example]]:
    """This process's parts of a group, of at most `most` rows; each process has as many parts, some may be empty."""
    if not group:
        return []
    each = -(-len(group) // count)
    pieces = 1 if most is None else -(-each // most)
    return evenly(group, count * pieces)[rank * pieces : (rank + 1) * pieces]


def evenly(items: Sequence[T], pieces: int) -> list[Sequence[T]]:
    """Cut into pieces, in order, whose lengths differ by one at most."""
    cuts = [len(items) * k // pieces for k in range(pieces + 1)]
    return [items[start:end] for start, end in pairwise(cuts)]
