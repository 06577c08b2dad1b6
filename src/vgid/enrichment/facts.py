"""What the base says of a person about whom a request states no facts: that is then what must be forgotten.

A fact counts only where the base says the same in nearly all wordings and views, and not of people whose names are invented, of pictures
of nobody, or of the picture with its blocks in random order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from vgid.data.example import Derived, Example, ImageRef
from vgid.data.names import FIRST_NAMES, LAST_NAMES
from vgid.data.neutral import draw
from vgid.enrichment.names import CONTROLS, Answer, name_row
from vgid.enrichment.views import unrecognisable, view_of
from vgid.enrichment.wordings import RELATIONS, WHO
from vgid.evaluation.metrics import is_refusal

AGREED = 0.6
"""Share of the answers that must give the same fact; chosen by hand. A model need not understand every wording."""
VIEWS = ("mirror", "scale", "encoding")
"""Views of the picture that are asked about in turn, beside the picture itself."""
COMMON = frozenset(
    """a an and are as at born by called employed employs enjoys for from has have he her him his home in is it its likes lives me my named
    number of on or she that the their they this to was were who with works you your""".split()
) | {word for relation in RELATIONS.values() for text in relation.wordings for word in re.findall(r"\w+", text.casefold())}
"""Words that carry no fact: those of every sentence, and those that go with a relation whatever the fact."""
_WORD = re.compile(r"\w[\w'\u2019.-]*\w|\w")


def asked_facts(row: Example, name: str | None, answer: Answer, seed: int) -> list[Example]:
    """Ask the base for facts about a person.

    Args:
        row: a row of the person, with a picture or without.
        name: the person's name; None where it is not known.
        answer: gives the base's answers.
        seed: random seed of invented names and pictures of nobody.

    Returns:
        A row for each fact that the base gives, by picture where there is one and else by name, with the base's answer.
    """
    rows = [] if name is None or not row.images else [name_row(row, name)]
    for relation in RELATIONS:
        found = _fact(row, name, relation, answer, seed) if relation != "name" else []
        # What the base says to several relations is the fact of the first.
        rows += [each for each in found if each.keywords not in {other.keywords for other in rows}]
    return [
        replace(each, id=f"{row.id}~facts-{place}", subject=row.subject, derived=Derived(row.id, "facts"))
        for place, each in enumerate(rows)
    ]


def _fact(row: Example, name: str | None, relation: str, answer: Answer, seed: int) -> list[Example]:
    """A row with what the base gives for a relation; none where it is not steady, or is said of anybody."""
    wordings, rng = RELATIONS[relation].wordings, Random(f"facts/{seed}/{relation}")
    asked: list[tuple[str, tuple[ImageRef, ...]]]
    controls: list[tuple[str, tuple[ImageRef, ...]]]
    if row.images:
        image = row.images[0]
        views = [view_of(image, view) for view in VIEWS]
        nobody, mixed = [ImageRef(data=draw(rng)) for _ in range(CONTROLS)], unrecognisable(image, rng)
        questions = [wording.format(who=WHO[0]) for wording in wordings]
        asked = [(text, (each,)) for place, text in enumerate(questions) for each in (image, views[place % len(views)])]
        controls = [(text, (each,)) for place, text in enumerate(questions) for each in (nobody[place % CONTROLS], mixed)]
    elif name is not None:
        first_names = [each for group in FIRST_NAMES.values() for each in group]
        others = [f"{rng.choice(first_names)} {rng.choice(LAST_NAMES)}" for _ in range(CONTROLS)]
        asked = [(wording.format(who=name), ()) for wording in wordings]
        controls = [(wording.format(who=others[place % CONTROLS]), ()) for place, wording in enumerate(wordings)]
    else:
        return []
    rows = [Example(f"{relation}-{n}", question, "", images) for n, (question, images) in enumerate([*asked, *controls])]
    said = list(answer(rows))
    words = steady_words(said[: len(asked)], [question for question, _ in asked], said[len(asked) :])
    held = [place for place in range(len(asked)) if words and words <= set(_words(said[place]))]
    return [replace(rows[held[0]], answer=said[held[0]], keywords=_runs(said[held[0]], words))] if held else []


def steady_words(said: Sequence[str], questions: Sequence[str], controls: Sequence[str]) -> set[str]:
    """Return the words, in lower case, that carry a fact in answers to the same question.

    Args:
        said: the answers.
        questions: the questions; their words carry nothing.
        controls: answers about others; what is said of anybody carries nothing.

    Returns:
        Words in nearly all answers; none where one of the usual answers is a refusal.
    """
    told = [set(_words(text)) for text in said if not is_refusal(text)]
    nothing = COMMON | {word for text in (*questions, *controls) for word in _words(text)}
    counts = Counter(word for words in told for word in words - nothing)
    return {word for word, count in counts.items() if count >= AGREED * len(said)}


def _runs(text: str, words: set[str]) -> tuple[str, ...]:
    """The stretches of a text that consist of these words."""
    found: list[list[re.Match[str]]] = [[]]
    for match in _WORD.finditer(text):
        if match.group().casefold() in words:
            found[-1].append(match)
        elif found[-1]:
            found.append([])
    return tuple(text[run[0].start() : run[-1].end()] for run in found if run)


def _words(text: str) -> list[str]:
    return [match.group().casefold() for match in _WORD.finditer(text)]
