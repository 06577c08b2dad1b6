"""Where the rows of a pass are cut: rows of similar length go together, and no more tokens than memory holds.

Rows of a pass are padded to the longest. Each pass costs something by itself, whatever is in it, so a cut must save enough padding to be
worth another pass. Any cut gives the same loss and the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
WORTH = {"cpu": 128, "cuda": 2048}
"""Tokens of padding that one more pass must save, by kind of device; chosen by hand: on a CPU a pass of the embedded model without tokens
takes as long as 60 tokens, and on an H100 a pass of a 7B model as long as about 2,000."""
STEPS = 16
"""Different lengths between a power of two and the next: at most 1/16 of a row is padding because of them."""


class Cut(NamedTuple):
    """How the rows of a step are cut into passes.

    Attributes:
        most: tokens of a pass, padding included, at most (a single row may be longer); None for no limit.
        worth: tokens of padding that one more pass must save; None never cuts because of padding.
        buckets: pad to one of few lengths, so that a device's plans and compiled code for a length are used again.
    """

    most: int | None = None
    worth: int | None = None
    buckets: bool = False


WHOLE = Cut()
"""All rows of a kind together."""


def bucket(length: int) -> int:
    """The next length of `STEPS` between two powers of two; every length up to 2 * `STEPS` is one itself."""
    step = max(1, 2 ** ((length - 1).bit_length() - 1) // STEPS) if length > 1 else 1
    return -(-length // step) * step


def of_similar_length(lengths: Sequence[int], worth: int | None) -> list[range]:
    """Cut rows, sorted by length, wherever that saves enough padding.

    Args:
        lengths: tokens of each row, ascending.
        worth: tokens of padding that one more pass must save; None never cuts.

    Returns:
        Ranges of places in `lengths`, in order.
    """
    found: list[range] = []
    waiting = [range(len(lengths))]
    while waiting:
        rows = waiting.pop()
        # Of rows in front of `place`, each is padded to the last of them instead of the last of all.
        saved = {place: (place - rows.start) * (lengths[rows[-1]] - lengths[place - 1]) for place in rows[1:]} if worth is not None else {}
        place = max(saved, key=saved.__getitem__, default=None)
        if place is None or worth is None or saved[place] < worth:
            found.append(rows)
        else:
            waiting += [range(place, rows.stop), range(rows.start, place)]
    return found


def that_fit(items: Sequence[T], tokens: Callable[[Sequence[T]], int], most: int | None) -> list[list[T]]:
    """Cut into pieces, in order, of at most `most` tokens; an item that has more is a piece of its own.

    Args:
        items: what is cut.
        tokens: tokens of a piece; of more items never fewer.
        most: tokens of a piece, at most; None for no limit.

    Returns:
        Pieces with all items, each as long as possible.
    """
    rest, pieces = list(items), list[list[T]]()
    while most is not None and rest and tokens(rest) > most:
        fits, too_many = 1, len(rest)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if tokens(rest[:middle]) <= most else (fits, middle)
        pieces.append(rest[:fits])
        rest = rest[fits:]
    return [*pieces, rest] if rest else pieces
