"""Probes: what the base says about others that no run trains on, so that it shows what a run loses.

Where the user gives few rows to keep, or none, what is held out of them says little about everybody else, whatever method trains and
whether it asks the base for rows to keep or not (`vgid.data.replay`). So the base is asked anew:

- by names that it says in a draw of their own, those first of whom it says the same each time;
- about pictures on which it sees some of these people (`vgid.models.inversion`);
- about one in eight of the user's pictures of others, about which the run itself asks nothing.

Names that come in this draw and in that of replay are asked in training too, with other questions; the others are unprotected. So probes
are about unprotected people in the proportion in which the base knows such people, as far as it says their names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from random import Random

from vgid.data.example import Example, ImageRef
from vgid.data.neutral import revealing_words
from vgid.data.replay import (
    Base,
    altered_picture,
    by_knowledge,
    imagined,
    name_templates,
    own_names,
    questions_about,
    questions_by_name,
    replay_kind,
    sampled_names,
    without_revealing,
)
from vgid.data.self_distilled import Questions
from vgid.seeds import derive_seed
from vgid.texts import normalise

PROBE = "probe"
"""Begins the ids of these rows."""
THIN = 1000
"""Retain rows from which on those that are held out of them are enough; chosen by hand."""
NAMES, OF_A_NAME = 50, 2
"""Names that are asked about, at most, and questions by each; chosen by hand."""
ALTERED, NAMELESS = 60, 100
"""Altered pictures about which the base is asked who it is, and times that it is asked without a picture, with four answers each; chosen by
hand."""
IMAGINED, AMONG = 16, 32
"""Pictures that are worked out, and names among which theirs are drawn, those first of whom the base is surest; chosen by hand."""
ONE_IN, MOST = 8, 8
"""Pictures of the retain set of which one is asked about, and the most of these; chosen by hand."""


def pictures_aside(forget: Sequence[Example], retain: Sequence[Example], seed: int) -> list[ImageRef]:
    """Choose pictures of the retain set about which the base is asked for probes only.

    Args:
        forget: rows to forget, whose pictures are left out.
        retain: rows to keep that the user gave.
        seed: random seed of the choice.

    Returns:
        One in eight of the different pictures, eight at most.
    """
    shown = {row.images[0] for row in forget if row.images}
    given = dict.fromkeys(row.images[0] for row in retain if row.images and not replay_kind(row))
    pictures = [image for image in given if image not in shown]
    return Random(f"aside/{seed}").sample(pictures, min(MOST, len(pictures) // ONE_IN))


def probe_rows(
    forget: Sequence[Example],
    pictures: Sequence[ImageRef],
    trained: Collection[Example],
    seed: int,
    base: Base,
    part: float = 1.0,
) -> Questions:
    """Choose what the base is to answer and no run trains on.

    Args:
        forget: rows to forget; their questions are asked about others.
        pictures: pictures of others.
        trained: rows that are trained on; their questions by name are not asked.
        seed: random seed of everything that is drawn.
        base: how the base is asked.
        part: share of names and imagined pictures that is asked, for a short run; in [0, 1].

    Returns:
        Rows with the base's answers, tagged as replay rows are. Answers with a part of a fact to forget are left out.
    """
    rng, seed = Random(f"probes/{seed}"), derive_seed(seed, "probes")
    own, pictured = own_names(forget), list(dict.fromkeys(row.images[0] for row in forget if row.images))
    altered = [altered_picture(rng.choice(pictured), rng) for _ in range(round(part * ALTERED)) if pictured]
    told = [name for name in sampled_names([], altered, [], seed, base, round(part * NAMELESS)) if name not in own]
    templates = name_templates(forget)
    known, _ = by_knowledge(told, templates, base, rng, seed)
    shown = rng.sample(known[:AMONG], min(round(part * IMAGINED), len(known[:AMONG])))
    about_pictures = list(dict.fromkeys(row.question for row in forget if row.images))
    rows = [
        *questions_by_name(known[: round(part * NAMES)], templates, OF_A_NAME, rng, {row.question for row in trained if not row.images}),
        *questions_about("crossed", pictures, about_pictures, rng),
        *questions_about("imagined", imagined(shown, forget, seed, base, rng), about_pictures, rng),
    ]
    rows = [replace(row, id=f"{PROBE}-{row.id}", subject=f"{PROBE}-{row.subject}") for row in rows]

    def kept(said: Sequence[str]) -> list[Example]:
        answered = [replace(row, answer=text) for row, text in zip(rows, said, strict=True) if normalise(text)]
        return without_revealing(answered, forget, revealing_words(forget))

    return Questions(rows, kept)
