"""What is seen on the pictures of those who are forgotten: general questions with the base's own answers, as retain rows.

A model that forgets who a person is must still see the colour of the background or a pair of glasses. Answers count only where the base
gives the same one about several views of a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from vgid.data.example import Derived, Example
from vgid.data.neutral import mentions, revealing_words
from vgid.data.self_distilled import similar_questions
from vgid.enrichment.names import Answer
from vgid.enrichment.views import view_of
from vgid.evaluation.metrics import is_refusal, normalise

QUESTIONS = (
    "What colour is the background?",
    "Which colour is behind this person?",
    "Is the background light or dark?",
    "Is this person wearing glasses?",
    "What is on the eyes of this person?",
    "What is the mood of this person?",
    "How does this person look?",
    "What is the expression of the person in the picture?",
    "What colour are the clothes of this person?",
    "Which colour does the person in the picture wear?",
    "What is this person wearing?",
    "What hair does this person have?",
    "What is on the head of the person in the picture?",
    "Does this person have a beard or a moustache?",
    "Is this person smiling?",
    "Is this person looking at the camera?",
    "How many people are in the picture?",
    "Is this picture a photograph or a drawing?",
    "Was this picture taken indoors or outdoors?",
    "Is there any text in this picture?",
    "What is in the background?",
    "Describe the picture in one sentence.",
)
"""Questions that need no knowledge of the person."""
VIEWS = (None, "mirror", "crop", "scale", "encoding")
"""Views that are asked about; None is the picture itself. None of them changes colours."""
AGREED = 0.8
"""Share of the views about which the base must say the same; chosen by hand."""
MOST_PICTURES = 16
"""Pictures that are asked about, at most; chosen by hand."""


def seen_rows(rows: Sequence[Example], secrets: Sequence[Example], answer: Answer, seed: int) -> list[Example]:
    """Ask the base what it sees on pictures.

    Args:
        rows: one row for each picture.
        secrets: rows whose facts must not appear in an answer, and whose questions are not asked.
        answer: gives the base's answers.
        seed: random seed of the choice of pictures, where there are many.

    Returns:
        Rows with the base's answers, about the views on which they agree.
    """
    rng = Random(f"seen/{seed}")
    chosen = list(rows) if len(rows) <= MOST_PICTURES else rng.sample(list(rows), MOST_PICTURES)
    asked = [
        [_row(row, question, place, view) for view in VIEWS] for row in chosen for place, question in enumerate(QUESTIONS)
    ]  # one list for each question about each picture
    similar = similar_questions(secrets, [group[0] for group in asked], rng)
    asked = [group for group in asked if group[0].question not in similar]
    flat = [row for group in asked for row in group]
    said = dict(zip((row.id for row in flat), answer(flat) if flat else (), strict=True))
    words = revealing_words(secrets)
    kept: list[Example] = []
    for group in asked:
        answers = Counter(normalise(said[row.id]) for row in group)
        text, count = answers.most_common(1)[0]
        if text and count >= AGREED * len(group) and not is_refusal(text) and not mentions(text, words):
            kept += [replace(row, answer=said[row.id]) for row in group if normalise(said[row.id]) == text]
    return kept


def _row(row: Example, question: str, place: int, view: str | None) -> Example:
    image = row.images[0]
    images = (image if view is None else view_of(image, view),)
    id = f"{row.id}~seen-{place}-{view or 'picture'}"
    return Example(id, question, "", images, row.subject, derived=Derived(row.id, "seen"))
