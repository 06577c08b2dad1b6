"""Comparing texts: one form for all, and whether an answer holds a keyword in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from vgid.errors import DataError

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
_EDGES = " .,;:!?\"'()[]。、，！？；：「」『』（）؟،؛"
_INVISIBLE = re.compile(
    "[\u00ad\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u061c\u0640\u064b-\u0652\u0670\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
"""Characters that change how a text looks, not what it says: soft hyphens, marks of direction, joiners, the Arabic tatweel, and the points
of Hebrew and Arabic, which most texts leave out."""
_ATTACHED = re.compile(
    "[\u0590-\u05ff\u0600-\u06ff\u0750-\u077f\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
"""Scripts that put no space around a word, or attach prefixes and particles to it: Hebrew, Arabic, Thai, Lao, Tibetan, Burmese, Khmer,
Chinese, Japanese and Korean."""


def normalise(text: str) -> str:
    """Return the form in which texts are compared: NFKC, case folded, straight apostrophes, single spaces, no invisible characters."""
    # Apostrophes first: NFKC would turn the acute accent into a space and a combining mark.
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).translate(_APOSTROPHES)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def key_fact(prediction: str, keywords: Sequence[str], reference: str = "") -> bool:
    """Return whether the prediction states the fact: every keyword occurs in it after `normalise`, on word boundaries.

    A boundary means that no letter or digit is next to the keyword, so that keywords may start and end with punctuation (`+49 171`, `C++`).
    A letter of a script that attaches words to each other (Chinese, Thai, Korean, Hebrew, ...) needs no boundary on either side, so that
    `1990` is found in `1990年`.

    Args:
        prediction: the model's answer.
        keywords: the strings that carry the fact.
        reference: the recorded answer; without keywords all of it must occur, except for punctuation at its ends. A reference that is
            punctuation alone must be the whole answer.

    Returns:
        True where the answer states the fact.

    Raises:
        DataError: a keyword, or the reference that replaces keywords, is empty.
    """
    wanted = [normalise(keyword) for keyword in keywords] or [normalise(reference).strip(_EDGES)]
    if not keywords and not wanted[0] and normalise(reference):
        return normalise(prediction) == normalise(reference)
    if not all(wanted):
        raise DataError(
            "nothing to look for in the answer",
            expected="keywords that are not empty, or a reference answer",
            got="an empty keyword" if keywords else "no keywords, and an empty reference",
        )
    text = normalise(prediction)
    return all(_occurs(each, text) for each in wanted)


def _occurs(wanted: str, text: str) -> bool:
    before = "" if _ATTACHED.match(wanted[0]) else rf"(?<!(?!{_ATTACHED.pattern})\w)"
    after = "" if _ATTACHED.match(wanted[-1]) else rf"(?!(?!{_ATTACHED.pattern})\w)"
    return re.search(f"{before}{re.escape(wanted)}{after}", text) is not None
