"""What two sets have in common: ids, pictures that look alike, texts that say almost the same.

Pictures are compared by difference hashes (is each of 8 x 8 pixels brighter than its neighbour?) and by small grey copies, texts by the
Jaccard index of their character n-grams. Only these small traces are kept in memory, never pictures or texts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgid.data.example import Example, ImageRef

SIDE = 8
"""Side of the grid whose pixels a difference hash compares; 8 x 8 comparisons give 64 bits."""
HASH_DISTANCE = 4
"""Number of bits, of 64, in which the hashes of similar pictures may differ; chosen by hand."""
GREY_DISTANCE = 12.0
"""Mean absolute difference of grey values, of 255, up to which two small copies are similar; chosen by hand. Hashes alone do not suffice,
since all pictures of a single colour have the same one."""
GRAM = 5
"""Length of the compared n-grams in characters; chosen by hand."""
LEAST_JACCARD = 0.85
"""Jaccard index of the n-grams of two texts from which on they say almost the same; chosen by hand."""


class Alike(NamedTuple):
    """A row of the forget set and a row of the retain set that are alike.

    Attributes:
        forget: place of the row in the forget set.
        retain: place of the row in the retain set.
        likeness: how alike the two are, in [0, 1]: share of equal bits of two pictures, Jaccard index of two texts.
    """

    forget: str
    retain: str
    likeness: float


class Trace(NamedTuple):
    """What is kept of a picture.

    Attributes:
        hash: difference hash of 64 bits.
        grey: grey copy of 8 x 9 pixels, in [0, 255].
    """

    hash: int
    grey: NDArray[np.float32]


@dataclass
class Traces:
    """What is kept of a set of examples.

    Attributes:
        ids: place of each id.
        pictures: place and trace of each different picture, by its hash in this process.
        texts: place and hashed n-grams of each question with its answer.
    """

    ids: dict[str, str] = field(default_factory=dict)
    pictures: dict[int, tuple[str, Trace]] = field(default_factory=dict)
    texts: list[tuple[str, frozenset[int]]] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Add the traces of an example."""
        place = example.where or example.id
        self.ids.setdefault(example.id, place)
        for ref in example.images:
            key = hash(ref)
            if key not in self.pictures:
                self.pictures[key] = place, picture_trace(ref)
        self.texts.append((place, grams(" ".join((*(turn.text for turn in example.context), example.question, example.answer)))))

    def passing(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield the examples as they come, and add the traces of each."""
        for example in examples:
            self.add(example)
            yield example


def picture_trace(ref: ImageRef) -> Trace:
    """Compute the trace of a picture.

    Raises:
        DataError: the picture cannot be opened.
    """
    grey = np.asarray(ref.open().convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS), dtype=np.float32)  # [8, 9]
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return Trace(int.from_bytes(np.packbits(bits).tobytes(), "big"), grey)


def grams(text: str) -> frozenset[int]:
    """Return hashes of a text's character n-grams, after case folding and with single spaces; a text shorter than that is one n-gram."""
    folded = " ".join(text.casefold().split())
    return frozenset(hash(folded[i : i + GRAM]) for i in range(max(1, len(folded) - GRAM + 1)))


def same_ids(forget: Traces, retain: Traces) -> list[Alike]:
    """Return the pairs of rows with the same id."""
    return [Alike(place, retain.ids[id], 1.0) for id, place in forget.ids.items() if id in retain.ids]


def alike_pictures(forget: Traces, retain: Traces) -> list[Alike]:
    """Return the pairs of pictures that look alike, the most alike first."""
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
    """Return the pairs of texts (question and answer together) that say almost the same, the most alike first.

    Two sets with a Jaccard index of at least `least` share one of their rarest n-grams (prefix filter; Bayardo, Ma & Srikant, "Scaling up
    all pairs similarity search", 2007), so only few pairs have to be compared.

    Args:
        forget: traces of the forget set.
        retain: traces of the retain set.
        least: Jaccard index from which on two texts are alike, in (0, 1].

    Returns:
        Pairs of places; their likeness is the Jaccard index.
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
    """Return the Jaccard index: the size of the intersection over that of the union."""
    return len(a & b) / len(a | b)


def _rarest(text: frozenset[int], count: Counter[int], least: float) -> Sequence[int]:
    """The n-grams of which a set with that Jaccard index must share at least one."""
    ordered = sorted(text, key=lambda gram: (count[gram], gram))
    return ordered[: len(text) - int(np.ceil(least * len(text) - 1e-9)) + 1]


def traces(examples: Iterable[Example]) -> Traces:
    """Compute the traces of a set, one example at a time."""
    made = Traces()
    for example in examples:
        made.add(example)
    return made
