"""What two sets have in common: ids, pictures that look alike, texts that say almost the same.

Pictures are compared by difference hashes (is each of 8 x 8 pixels brighter than its neighbour?) and by small grey copies, texts by the
Jaccard index of their character n-grams. Only these small traces are held, never pictures or texts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgid.data.example import Example, ImageRef

SIDE = 8
HASH_DISTANCE = 4
"""Bits, of 64, in which hashes of alike pictures may differ."""
GREY_DISTANCE = 12.0
"""Mean difference of grey values, of 255, of their small copies: even pictures of one colour have equal hashes."""
GRAM = 5
LEAST_JACCARD = 0.85


class Alike(NamedTuple):
    """Two places, and how alike what stands there is, in [0, 1]."""

    forget: str
    retain: str
    likeness: float


class Trace(NamedTuple):
    """What is kept of a picture: its hash and a small grey copy."""

    hash: int
    grey: NDArray[np.float32]


@dataclass
class Traces:
    """What is kept of a set of examples."""

    ids: dict[str, str] = field(default_factory=dict)
    pictures: dict[int, tuple[str, Trace]] = field(default_factory=dict)
    texts: list[tuple[str, frozenset[int]]] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Take an example's traces."""
        place = example.where or example.id
        self.ids.setdefault(example.id, place)
        for ref in example.images:
            key = hash(ref)
            if key not in self.pictures:
                self.pictures[key] = place, picture_trace(ref)
        self.texts.append((place, grams(f"{example.question} {example.answer}")))


def picture_trace(ref: ImageRef) -> Trace:
    """The trace of a picture.

    Raises:
        DataError: it cannot be opened.
    """
    grey = np.asarray(ref.open().convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS), dtype=np.float32)  # [8, 9]
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return Trace(int.from_bytes(np.packbits(bits).tobytes(), "big"), grey)


def grams(text: str) -> frozenset[int]:
    """Hashes of the character n-grams of a text, in one case and with single spaces; a shorter text is one gram."""
    folded = " ".join(text.casefold().split())
    return frozenset(hash(folded[i : i + GRAM]) for i in range(max(1, len(folded) - GRAM + 1)))


def same_ids(forget: Traces, retain: Traces) -> list[Alike]:
    """Ids that are in both sets."""
    return [Alike(place, retain.ids[id], 1.0) for id, place in forget.ids.items() if id in retain.ids]


def alike_pictures(forget: Traces, retain: Traces) -> list[Alike]:
    """Pairs of pictures that look alike, the most alike first."""
    a, b = list(forget.pictures.values()), list(retain.pictures.values())
    if not a or not b:
        return []
    hashes = np.array([trace.hash for _, trace in b], dtype=np.uint64)
    greys = np.stack([trace.grey for _, trace in b])  # [n, 8, 9]
    found = []
    for place, trace in a:
        distance = np.bitwise_count(hashes ^ np.uint64(trace.hash))
        near = np.flatnonzero(distance <= HASH_DISTANCE)
        differs = np.abs(greys[near] - trace.grey).mean((1, 2))
        found += [Alike(place, b[i][0], 1 - int(distance[i]) / 64) for i in near[differs <= GREY_DISTANCE]]
    return sorted(found, key=lambda pair: -pair.likeness)


def alike_texts(forget: Traces, retain: Traces, least: float = LEAST_JACCARD) -> list[Alike]:
    """Pairs of texts (question and answer together) whose Jaccard index is at least `least`, the most alike first.

    Sets that are so alike share one of their rarest grams (prefix filter; Bayardo, Ma & Srikant, 2007), so that few pairs need be compared.
    """
    count = Counter(gram for _, text in (*forget.texts, *retain.texts) for gram in text)
    index: dict[int, list[int]] = defaultdict(list)
    for number, (_, text) in enumerate(retain.texts):
        for gram in _rarest(text, count, least):
            index[gram].append(number)
    found = []
    for place, text in forget.texts:
        for number in sorted({number for gram in _rarest(text, count, least) for number in index.get(gram, ())}):
            other, known = retain.texts[number]
            if (likeness := jaccard(text, known)) >= least:
                found.append(Alike(place, other, likeness))
    return sorted(found, key=lambda pair: -pair.likeness)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Size of what is common to both over that of all."""
    return len(a & b) / len(a | b)


def _rarest(text: frozenset[int], count: Counter[int], least: float) -> Sequence[int]:
    ordered = sorted(text, key=lambda gram: (count[gram], gram))
    return ordered[: len(text) - int(np.ceil(least * len(text) - 1e-9)) + 1]


def traces(examples: Iterable[Example]) -> Traces:
    """The traces of a set."""
    made = Traces()
    for example in examples:
        made.add(example)
    return made
