"""Masking of names: a question without a picture is put to the teacher with invented names.

A question by name shows its subject as a picture does, and an instruction alone does not make a base overlook it: with the beginning of
the recorded answer given, an instructed base still says the fact. So its teacher reads an invented name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from vgid.data.example import Example
from vgid.data.names import FIRST_NAMES, LAST_NAMES

LOOKED_AT = 4000
"""Rows in which words are counted, at most; it bounds the time on large retain sets."""
FEW, FEWEST = 0.1, 3
"""A word is a name only where it appears in questions about few subjects: at most this fraction of all subjects, or this number if
that is more. Chosen by hand on the fictional people, whose questions share every other word."""
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_BEGINS = re.compile(r"(?:^|[.?!:\n])[\W_]*$")
"""What stands before the first word of a sentence."""


class Names:
    """Distinguishes names from other words, and replaces them by invented ones.

    A name is a word with a capital that stands in the questions about few subjects only; the first word of a sentence is one if it has
    a capital elsewhere too. Rows without a subject count as one each.

    Args:
        examples: all rows of the run; only those without pictures are used.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        subjects: dict[str, set[str]] = defaultdict(set)
        asked_about: set[str] = set()
        self._capital: set[str] = set()
        for example in examples:
            if not example.images:
                subject = example.subject or f"\0{example.id}"
                asked_about.add(subject)
                for found in _WORD.finditer(example.question):
                    subjects[found.group().casefold()].add(subject)
                    if found.group()[0].isupper() and not _begins(found):
                        self._capital.add(found.group().casefold())
        most = max(FEWEST, int(FEW * len(asked_about)))
        self._common = {word for word, found in subjects.items() if len(found) > most}

    def of(self, question: str) -> list[str]:
        """The words of a question that are names, in their order."""
        return [found.group() for found in _WORD.finditer(question) if self._is_name(found)]

    def _is_name(self, found: re.Match[str]) -> bool:
        word = found.group().casefold()
        return found.group()[0].isupper() and word not in self._common and (word in self._capital or not _begins(found))

    def hide(self, question: str, rng: Random) -> str:
        """The question with other names, or as it is where it has none: the first becomes a first name, all others last names."""
        names = set(self.of(question))
        if not names:
            return question
        first = rng.choice([name for group in FIRST_NAMES.values() for name in group])
        invented: dict[str, str] = {}

        def other(found: re.Match[str]) -> str:
            word = found.group()
            if word in names and word not in invented:
                invented[word] = rng.choice(LAST_NAMES) if invented else first
            return invented.get(word, word)

        return _WORD.sub(other, question)


def _begins(found: re.Match[str]) -> bool:
    return bool(_BEGINS.search(found.string[: found.start()]))


def names_in(forget: Sequence[Example], retain: Sequence[Example]) -> Names:
    """Find names in the rows of a run; of a large retain set, evenly spaced rows are used."""
    step = max(1, len(retain) // LOOKED_AT)
    return Names([*forget, *(retain[place] for place in range(0, len(retain), step))])


def mask_names(names: Names, examples: Sequence[Example], seed: tuple[object, ...]) -> tuple[Example, ...]:
    """Replace names as the teacher is to read them; rows with pictures stay as they are.

    Args:
        names: finds the names in a question.
        examples: rows.
        seed: what the invented names follow from, together with a row's id.

    Returns:
        The rows, in their order.
    """
    return tuple(example if example.images else _hidden(names, example, Random(f"{seed}/{example.id}")) for example in examples)


def _hidden(names: Names, example: Example, rng: Random) -> Example:
    """The row with invented names, the same ones in all of its turns."""
    *said, question = names.hide("\n\0".join([*(turn.text for turn in example.context), example.question]), rng).split("\n\0")
    context = tuple(turn._replace(text=text) for turn, text in zip(example.context, said, strict=True))
    return replace(example, question=question, context=context)
