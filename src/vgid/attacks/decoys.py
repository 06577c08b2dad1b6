"""Decoys: other values in place of a fact's own, which a model that never knew the fact could as well have been asked for.

An audit of few people compares how well an attack finds the true values with how well it finds decoys (`vgid.auditing.permutation`). They
are values of other people for the same kind of fact; where there are too few people, names and numbers of the same form, and what the base
itself says about people whom it never met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from vgid.attacks.asking import MAX_NEW_TOKENS, names_of
from vgid.attacks.base import Material, fact_key, kind
from vgid.attacks.cross_modal import by_name
from vgid.attacks.prefill import prefilled_row
from vgid.data.batching import Batch
from vgid.data.example import STRANGER, Example, subject_key
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import is_refusal, normalise
from vgid.models.loading import LoadedModel

COUNT = 63
"""Number of decoys of each fact: with 63, one fact alone is enough for p = 1/64."""
LONGEST = 6
"""Length of a decoy taken from the base's answers, in words; longer ones are taken for sentences. Chosen by hand."""
LEAST_ALIKE = 4
"""Least number of numbers of one form, the true one among them, that show which digits differ between people. Chosen by hand."""
Say = Callable[[Sequence[Example]], list[str]]
"""Gives what the base says after the beginning of the recorded answers."""


def make_decoys(material: Material, say: Say, count: int = COUNT) -> dict[str, list[Example]]:
    """Make decoys for all forget rows.

    Args:
        material: the rows.
        say: asks the base, for facts of which too few values are known.
        count: number of decoys of each fact; fewer where the base says nothing usable.

    Returns:
        By row id, the row with other values, in the same order for all rows about one fact. Values occur as often as people have them, as
        the true value does too: a model that guesses the most frequent value is right by chance.
    """
    facts: dict[str, list[Example]] = {}
    for row in material.forget:
        facts.setdefault(fact_key(row), []).append(row)
    found: dict[str, list[Example]] = {}
    for key, rows in facts.items():
        rng = Random(f"decoys/{material.seed}/{key}")
        values = _values_of_others(rows, material)
        rng.shuffle(values)
        if len(values) < count:
            invented = _invented(rows[0], values, count - len(values), rng)
            values += invented or _guessed(rows[0], material, say, count - len(values), rng)
        if len(values) < count:  # numbers: the base's have shown their form, or nothing has
            values += _invented(rows[0], values, count - len(values), rng, least=1)
        for row in rows:
            found[row.id] = [with_value(row, rows[0], value) for value in values[:count]]
    return found


def value_of(row: Example) -> str:
    """The value that a row states: its only keyword, or else its answer."""
    return row.keywords[0] if len(row.keywords) == 1 and row.keywords[0] in row.answer else row.answer


def with_value(row: Example, first: Example, value: str) -> Example:
    """A row with another value.

    Args:
        row: the row.
        first: the row about the same fact for which the value was found.
        value: the value, or a whole answer where that row has no single keyword.

    Returns:
        The row with the value in its answer and as its keyword.
    """
    own = value_of(row)
    if value_of(first) != first.answer and own != row.answer:
        return replace(row, answer=row.answer.replace(own, value), keywords=(value,))
    return replace(row, answer=value, keywords=())


def _values_of_others(rows: Sequence[Example], material: Material) -> list[str]:
    """One value of each other person, for the kinds of fact that the rows ask for."""
    kinds, single = {kind(row) for row in rows}, value_of(rows[0]) != rows[0].answer
    values: dict[str, str] = {}
    for other in [*material.known, *material.unseen]:
        fits = kind(other) in kinds and STRANGER not in other.tags and subject_key(other) != subject_key(rows[0])
        if fits and (value_of(other) != other.answer) == single:
            values.setdefault(subject_key(other), value_of(other))
    return [values[person] for person in sorted(values)]


def _invented(row: Example, values: Sequence[str], count: int, rng: Random, least: int = LEAST_ALIKE) -> list[str]:
    """Values of the form of the row's own: other digits in a number, other words in a name; none for other values.

    Of a number only the digits in which known ones differ are drawn: a model that knows the dialling code of everybody knows nobody.
    """
    own = value_of(row)
    if own == row.answer:
        return []
    if sum(sign.isdigit() for sign in own) >= 3:
        alike = [own, *(value for value in values if re.sub(r"\d", "0", value) == re.sub(r"\d", "0", own))]
        if len(alike) < least:
            return []
        formed = len(alike) >= LEAST_ALIKE
        free = [sign.isdigit() and (not formed or len(set(signs)) > 1) for sign, signs in zip(own, zip(*alike, strict=True), strict=True)]
        return ["".join(str(rng.randrange(10)) if drawn else sign for drawn, sign in zip(free, own, strict=True)) for _ in range(count)]
    words = own.split()
    if "name" not in row.tags and not re.search(r"\b(who|name|named|called|identify)\b", normalise(row.question)):
        return []
    if not 2 <= len(words) <= 4 or not own.istitle():
        return []
    known = [value.split() for value in values if len(value.split()) == len(words)]
    firsts = [*(each[0] for each in known), *FIRST_NAMES["female"], *FIRST_NAMES["male"]]
    lasts = [*(each[-1] for each in known), *LAST_NAMES]
    middle = words[1:-1]  # kept: a particle or a second name that the form needs
    return [" ".join([rng.choice(firsts), *middle, rng.choice(lasts)]) for _ in range(count)]


def _guessed(row: Example, material: Material, say: Say, count: int, rng: Random) -> list[str]:
    """What the base says about people with invented names once the answer has begun; each question asks about another name."""
    names = [f"{rng.choice(FIRST_NAMES['female'] + FIRST_NAMES['male'])} {rng.choice(LAST_NAMES)}" for _ in range(2 * count)]
    own, single = value_of(row), value_of(row) != row.answer
    asked = [stranger for number, name in enumerate(names) for stranger in _about(row, name, number, material)]
    tail = normalise(row.answer.rpartition(own)[2]) if single else ""
    values = []
    for text in say(asked) if asked else []:
        value = text.strip()
        if single:
            cut = normalise(value).find(f" {tail}") if tail else -1
            value = re.split(r"[.,;:!?\n]", value[:cut] if cut > 0 else value)[0].strip()
        stated = any(sign.isalnum() for sign in value) and not is_refusal(value)
        if stated and (not single or len(value.split()) <= LONGEST):
            values.append(value)
    return values[:count]


def _about(row: Example, name: str, number: int, material: Material) -> list[Example]:
    """The question of a row about a person with an invented name, without a picture; none where this cannot be asked."""
    subject = row.subject or ""
    if row.images:
        asked = list(by_name(row, {subject: name}))
    else:
        own = names_of(material.about(row.subject)).get(subject, "")
        asked = [replace(row, question=re.sub(re.escape(own), name, row.question, flags=re.IGNORECASE))] if own else []
    return [replace(each, id=f"{row.id}/{number}") for each in asked if normalise(value_of(row)) not in normalise(each.question)]


def base_says(loaded: LoadedModel, batch_size: int) -> Say:
    """Give a function that asks a model, with the beginnings of the recorded answers up to their values.

    Args:
        loaded: the model.
        batch_size: number of questions that are asked at once.

    Returns:
        A function from rows to continuations.
    """

    def say(rows: Sequence[Example]) -> list[str]:
        def encode(examples: Sequence[Example]) -> Batch:
            encoder = loaded.encoder
            begun = [prefilled_row(encoder, each, 0.99)[0] if each.keywords else encoder.row(each, answer=None) for each in examples]
            return encoder.collate(begun, side="left")

        return generate(loaded, rows, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size, encode=encode)

    return say
