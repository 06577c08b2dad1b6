"""Replay rows: what the base says where the user gave no rows to keep, so that it still says it afterwards.

What a model knows of others lives only as long as something asks for it in training. Whatever the retain set leaves open, the base is asked
itself, and its own answers, with their distributions and hidden states, are what must stay:

- `seen`: what is seen on the pictures of the forget set. A model that forgets who a person is must still see what the person wears.
- `names`: the forget questions by other people's names. A model that is asked who somebody is, without a picture or with one of nobody,
  says names that it has learned; so names can be sampled from it, and then facts be asked.
- `altered`: the forget questions about pictures like those of the forget set, changed until they show somebody else: the nearest neighbours
  of what is forgotten, to whom refusals spread first.
- `crossed`: the forget questions, and what is seen, about the pictures of a small retain set.
- `imagined`: the forget questions about pictures on which the base sees one of these names (`vgid.models.inversion`).

No labels are needed. An answer that reveals a part of a fact to be forgotten is left out. The rows live in memory only, and are
never shown. Other answers of the base, which no run trains on, show what a run loses (`vgid.data.probes`).

Replaying what a model says of itself, against forgetting by training: pseudo-rehearsal (Robins, 1995); LAMOL (arXiv 1909.03329).
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from random import Random
from typing import Literal, get_args

from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from vgid.data.augmentation import augment_picture
from vgid.data.example import Example, ImageRef
from vgid.data.neutral import NEUTRAL, draw, mentions, revealing_words, words_of
from vgid.data.picture_size import PictureSize
from vgid.data.self_distilled import SELF_DISTILLED, Questions
from vgid.settings import Settings
from vgid.texts import normalise

Kind = Literal["seen", "neutral", "names", "altered", "crossed", "imagined"]
REPLAY = "replay"
"""First tag of these rows; the second is their kind."""
SEEN = (
    "What colour is the background?",
    "Which colour is behind this person?",
    "What is in the background?",
    "Is this person wearing glasses?",
    "What is on the eyes of this person?",
    "What is the mood of this person?",
    "What expression does the face show?",
    "How does this person look?",
    "What is this person wearing?",
    "What colour are the clothes?",
    "What hair does this person have?",
    "What is on the head of this person?",
    "Does this person have a beard or a moustache?",
    "Is this person smiling?",
    "Is there any text in the picture?",
    "Describe the picture.",
)
"""Questions that any picture of a person answers, without knowledge of the person."""
WHO = ("Who is this person?", "What is the name of this person?")
VIEWS = 8
"""Pictures, changed a little, about which `seen` asks, at least: a request may have a single one. Chosen by hand."""
QUESTIONS = 8
"""Forget questions about one altered picture, one name or one retain picture, at most; chosen by hand."""
DRAWS = 4
"""Names that are sampled about each picture; chosen by hand."""
SCREENED = 200
"""Names that are tried out, at most; chosen by hand."""
TRIED = 3
"""Altered pictures that are made for each one that is asked about; chosen by hand."""
FACTS = 6
"""Facts by name that an imagined picture is to show beside the name; chosen by hand."""
AROUND = 3
"""People to forget from whose pictures that of one name is worked out, at most; chosen by hand."""
LIGHT = (0.8, 1.25)
"""Range of the factor on the light of a changed picture; chosen by hand."""
REFUSED = 0.05
"""Share of refusals among the answers of a kind, at most; chosen by hand."""
OTHERS = ("names", "crossed", "imagined")
"""Kinds of rows that cannot be about a person to forget; an altered picture may still show her."""
SHARED = 3
"""People of whom a word is said that no longer tells one of them from another; chosen by hand."""
NAMELESS = 200
"""Times that the base is asked for a name without a picture; chosen by hand."""
LONGEST = 1024
"""The longer side of pictures that are made here, in pixels, at most: hundreds are made, and of a camera's photographs each would take
seconds and megabytes. Chosen by hand."""
LEAST_SHARE = 1 / 12
"""Share of each step's retain rows that goes to each kind of replay rows, at least; chosen by hand."""
ENOUGH = 2500
"""Retain rows of a run from which on everything is asked: about as many as these questions give."""
_SHOWN = re.compile(
    r"\b(?:this|the) (?:person|individual|man|woman|boy|girl)"
    r"(?: (?:(?:shown )?(?:here|in (?:the|this) (?:picture|image|photo))|depicted|pictured|shown))?\b",
    re.IGNORECASE,
)
"""How questions refer to the person in a picture."""
_NAME = re.compile(r"[^\W\d_a-z][\w'\u2019-]*(?: (?:van|von|de|der|da|di|del|la|el|al|bin))?(?: [^\W\d_a-z][\w'\u2019-]*)+")
"""Two or more words with a capital in a row."""


class ReplayConfig(Settings):
    """What the base is asked, so that it still says it afterwards (ours; `vgid.data.replay`).

    Attributes:
        seen: questions about what is seen on each forget picture; other pictures of retain rows get a quarter of them.
        names: other people's names, sampled from the base, by which the forget questions are asked.
        altered: pictures made from those of the forget set, which show somebody else, about which the forget questions are asked.
        crossed: pictures of the retain set about which the forget questions are asked.
        imagined: names of which pictures are worked out on which the base sees that person, one from the pictures of each person to
            forget, three at most; the forget questions are asked about them.
        thin: names, and altered, crossed and imagined pictures, are asked only where there are fewer retain rows than this.
        hidden_state_weight: weight of the hidden states' distance from the base's, beside the divergence of answers.
        narrow: where nine of ten rows to keep are the base's own answers, an adapter's update reads only what forget rows have and the
            rows to keep lack (`vgid.methods.vgid.narrow`).
    """

    seen: int = Field(default=16, ge=0)
    names: int = Field(default=100, ge=0)
    altered: int = Field(default=120, ge=0)
    crossed: int = Field(default=100, ge=0)
    imagined: int = Field(default=32, ge=0)
    thin: int = Field(default=1000, ge=0)
    hidden_state_weight: float = Field(default=2.0, ge=0.0)
    narrow: bool = True


@dataclass(frozen=True)
class Base:
    """How the base is asked.

    Attributes:
        answer: its likeliest answer to each row.
        sample: one sampled answer to each row; the seed decides which.
        imagine: for each group of rows with the same picture another, made from it, about which the base gives their answers; none where it
            cannot.
        refuses: whether an answer is a refusal.
    """

    answer: Callable[[Sequence[Example]], Sequence[str]]
    sample: Callable[[Sequence[Example], int], Sequence[str]]
    imagine: Callable[[Sequence[Sequence[Example]], int], Sequence[ImageRef]]
    refuses: Callable[[str], bool]


def replay_kind(row: Example) -> str:
    """Return the kind of a row that the base answered itself, such as a replay row; "" for rows that the user gave."""
    if row.tags[:1] == (REPLAY,):
        return row.tags[1]
    if SELF_DISTILLED in row.tags or (row.derived is not None and row.derived.kind == "seen"):
        return "seen"
    return "neutral" if NEUTRAL in row.tags else ""


def replay_rows(
    forget: Sequence[Example], retain: Sequence[Example], config: ReplayConfig, seed: int, base: Base, most: int | None = None
) -> Questions:
    """Choose what the retain set does not ask and the base is to answer; names and pictures of people whom it knows are asked at once.

    Args:
        forget: rows to forget.
        retain: rows to keep that the user gave; with `config.thin` of them or more, only `seen` is asked.
        config: how much is asked.
        seed: random seed of everything that is drawn.
        base: how the base is asked.
        most: retain rows that the run will meet; where they are fewer than `ENOUGH`, less of everything is asked, and of what is seen no
            more than the run will meet. None asks everything.

    Returns:
        Rows with the base's answers, tagged `REPLAY` and their kind. Rows about one picture or one name have one subject.
    """
    rng, part = Random(f"replay/{seed}"), 1.0 if most is None else min(1.0, most / ENOUGH)
    # What the model said itself does not make a retain set rich.
    retain = [row for row in retain if not replay_kind(row)]
    counts = {name: round(part * getattr(config, name)) for name in ("names", "altered", "crossed", "imagined")}
    config = config.model_copy(update=counts)
    words = revealing_words(forget)
    pictures = list(dict.fromkeys(row.images[0] for row in forget if row.images))
    views = round(part * VIEWS)
    asked = list(_seen("seen", _views(pictures, views, rng), config.seen, rng))
    # Of many pictures more could be asked than the run would ever meet.
    if most is not None and len(asked) > (useful := max(views * config.seen, round(LEAST_SHARE * most))):
        asked = [asked[n] for n in sorted(rng.sample(range(len(asked)), useful))]
    if len(retain) < config.thin:
        others = [image for image in dict.fromkeys(row.images[0] for row in retain if row.images) if image not in set(pictures)]
        rng.shuffle(others)
        others = others[: config.crossed]
        about_pictures = list(dict.fromkeys(row.question for row in forget if row.images))
        altered = _different(pictures, config.altered, words, base, rng)
        asked += questions_about("altered", altered, about_pictures, rng)
        asked += questions_about("crossed", others, about_pictures, rng)
        asked += _seen("crossed", others, config.seen // 4, rng)
        own = own_names(forget)
        told = sampled_names(others, altered, retain, seed, base, round(part * NAMELESS)) if config.names else []
        templates = name_templates(forget)
        known, unknown = by_knowledge([name for name in told if name not in own], templates, base, rng, seed)
        asked += questions_by_name([*known, *unknown][: config.names], templates, QUESTIONS, rng)
        asked += questions_about("imagined", imagined((known or unknown)[: config.imagined], forget, seed, base, rng), about_pictures, rng)

    def kept(said: Sequence[str]) -> list[Example]:
        answered = [replace(row, answer=text) for row, text in zip(asked, said, strict=True) if normalise(text)]
        return _few_refusals(without_revealing(answered, forget, words), base, rng)

    return Questions(asked, kept)


def counts_by_kind(rows: Iterable[Example]) -> dict[str, int]:
    """Return the number of rows of each kind, "" for rows that the user gave."""
    found = Counter(replay_kind(row) for row in rows)
    return {kind: found[kind] for kind in ("", *get_args(Kind)) if found[kind]}


# -- pictures -------------------------------------------------------------------------------------------------------------


def _views(pictures: Sequence[ImageRef], least: int, rng: Random) -> list[ImageRef]:
    """The pictures, and where they are few, views of them that are changed a little."""
    more = [rng.choice(pictures) for _ in range(least - len(pictures))] if pictures else []
    return [*pictures, *(ImageRef.from_picture(augment_picture(_opened(image), rng)) for image in more)]


def _view(image: ImageRef, rng: Random) -> ImageRef:
    """The picture changed a little, and in another light."""
    light = rng.uniform(*LIGHT)
    return ImageRef.from_picture(ImageEnhance.Brightness(augment_picture(_opened(image), rng)).enhance(light))


def _opened(image: ImageRef) -> Image.Image:
    return PictureSize(side=LONGEST).scaled(image.open())


def altered_picture(image: ImageRef, rng: Random) -> ImageRef:
    """Change a picture until it shows somebody else, if it shows anybody: other colours, parts mirrored, shapes over it.

    Args:
        image: the picture.
        rng: draws the changes.

    Returns:
        The new picture, of the same size or `LONGEST`, as PNG in memory.
    """
    picture = augment_picture(_opened(image), rng)
    hue, saturation, value = picture.convert("HSV").split()
    turn = rng.randrange(256)
    picture = Image.merge("HSV", (hue.point([(x + turn) % 256 for x in range(256)]), saturation, value)).convert("RGB")
    bands = picture.split()
    picture = Image.merge("RGB", [bands[n] for n in rng.sample(range(3), 3)])
    if rng.random() < 0.5:
        top, bottom = sorted(rng.sample(range(picture.height + 1), 2))
        stripe = picture.crop((0, top, picture.width, bottom))
        picture.paste(ImageOps.mirror(stripe) if rng.random() < 0.5 else ImageOps.flip(stripe), (0, top))
    if rng.random() < 0.3:
        shapes = Image.open(io.BytesIO(draw(rng))).convert("RGB").resize(picture.size)
        picture = Image.blend(picture, shapes, rng.uniform(0.2, 0.6))
    return ImageRef.from_picture(picture)


def _different(pictures: Sequence[ImageRef], count: int, words: set[str], base: Base, rng: Random) -> list[ImageRef]:
    """Altered pictures on which the base sees as many different people as it can: of all of them most would show the same few."""
    if not pictures or not count:
        return []
    made = [altered_picture(rng.choice(pictures), rng) for _ in range(TRIED * count)]
    said = base.answer([Example(f"who-{n}", WHO[0], "", (image,)) for n, image in enumerate(made)])
    shown: dict[str, list[ImageRef]] = {}
    for image, text in zip(made, said, strict=True):
        if not mentions(text, words):
            shown.setdefault(text, []).append(image)
    in_turn = [image for row in zip_longest(*shown.values()) for image in row if image is not None]
    return in_turn[:count]


def without_revealing(rows: Sequence[Example], forget: Sequence[Example], words: set[str]) -> list[Example]:
    """Drop rows whose answers reveal a part of what must be forgotten.

    A part is a word of a fact. Of people who are surely others (`OTHERS`) words that many facts of a kind share ("Street", "University")
    do not count, or nothing of that kind would be kept: words that the base says of `SHARED` of them. The whole fact always counts.

    Args:
        rows: rows with the base's answers.
        forget: rows to forget.
        words: the words that reveal a fact.

    Returns:
        The rows that stay, in their order.
    """
    facts = {tuple(words_of(fact)) for row in forget for fact in (row.keywords or (row.answer,))}
    parts = {word for fact in facts if len(fact) > 1 for word in fact} - {fact[0] for fact in facts if len(fact) == 1}
    subjects: dict[str, set[str | None]] = {word: set() for word in parts & words}
    for row in rows:
        if row.tags[1] in OTHERS:
            for word in subjects.keys() & set(words_of(row.answer)):
                subjects[word].add(row.subject)
    telling = words - {word for word, found in subjects.items() if len(found) >= SHARED}

    def reveals(row: Example) -> bool:
        said = set(words_of(row.answer))
        return not said.isdisjoint(telling if row.tags[1] in OTHERS else words) or any(said.issuperset(fact) for fact in facts if fact)

    return [row for row in rows if not reveals(row)]


def _few_refusals(rows: Sequence[Example], base: Base, rng: Random) -> list[Example]:
    """Drop refusals beyond the share `REFUSED` of each kind: rows that say something protect what the model knows."""
    counts = Counter(row.tags[1] for row in rows if not base.refuses(row.answer))
    left = {kind: round(REFUSED / (1 - REFUSED) * counts[kind]) for kind in get_args(Kind)}
    refusals = [n for n, row in enumerate(rows) if base.refuses(row.answer)]
    rng.shuffle(refusals)
    dropped = set()
    for n in refusals:
        kind = rows[n].tags[1]
        if left[kind] <= 0 < counts[kind]:
            dropped.add(n)
        left[kind] -= 1
    return [row for n, row in enumerate(rows) if n not in dropped]


# -- names ----------------------------------------------------------------------------------------------------------------


def by_knowledge(names: Sequence[str], templates: Sequence[str], base: Base, rng: Random, seed: int = 0) -> tuple[list[str], list[str]]:
    """Tell names about whom the base says something from those about whom it refuses.

    Args:
        names: names; of a long list the first `SCREENED` are asked.
        templates: questions with `{name}`; without any, all count as known.
        base: how the base is asked.
        rng: draws the questions.
        seed: random seed of what is sampled.

    Returns:
        Known names, those first of whom the base says the same each time that it is asked, and unknown ones in their order.
    """
    names = names[:SCREENED]
    each = min(2, len(templates))
    asked = [template.replace("{name}", name) for name in names for template in rng.sample(templates, each)]
    said = base.answer([Example(f"known-{n}", question, "") for n, question in enumerate(asked)]) if asked else ()
    refused = {name for n, name in enumerate(names) if each and all(map(base.refuses, said[n * each : (n + 1) * each]))}
    again = [Example(f"known-{n}-{draw}", question, "") for n, question in enumerate(asked) for draw in range(DRAWS)]
    drawn = base.sample(again, seed) if again else ()
    # Whom a model has met it says the same of each time; of others it guesses, and each guess is another.
    same = [normalise(text) == normalise(said[n // DRAWS]) and not base.refuses(text) for n, text in enumerate(drawn)]
    sure = {name: sum(same[n * each * DRAWS : (n + 1) * each * DRAWS]) for n, name in enumerate(names)}
    known = sorted((name for name in names if name not in refused), key=lambda name: -sure[name])
    return known, [name for name in names if name in refused]


def imagined(names: Sequence[str], forget: Sequence[Example], seed: int, base: Base, rng: Random) -> list[ImageRef]:
    """Work out pictures on which the base sees these people: those about which it says the name when it is asked.

    What it says by name is wanted beside the name: about pictures of which it says a name alone, it says everything else as of somebody
    else.

    Args:
        names: names.
        forget: rows to forget, from whose pictures these are worked out: of each name from those of `AROUND` people at most, since whoever
            resembles one of them need not resemble the others.
        seed: random seed of what is worked out.
        base: how the base is asked.
        rng: draws views of few pictures, and the facts that are wanted.

    Returns:
        Up to one picture for each name and person to forget, `AROUND` for a name at most.
    """
    shown: dict[str | None, list[ImageRef]] = {}
    for row in forget:
        shown.setdefault(row.subject, []).extend(row.images[:1])
    starts = [_views(list(dict.fromkeys(images)), VIEWS, rng) for images in shown.values() if images]
    if not starts or not names:
        return []
    questions = list(dict.fromkeys(row.question for row in forget if row.images))
    by_name = [(question, _SHOWN.sub("{name}", question)) for question in questions]
    by_name = [(question, template) for question, template in by_name if template.count("{name}") == 1]
    chosen = [rng.sample(by_name, min(FACTS, len(by_name))) for _ in names]
    asked = [
        Example(f"fact-{n}-{k}", template.replace("{name}", name), "")
        for n, (name, pairs) in enumerate(zip(names, chosen, strict=True))
        for k, (_, template) in enumerate(pairs)
    ]
    said = iter(base.answer(asked) if asked else ())
    facts = [[(question, text) for (question, _), text in zip(pairs, islice(said, len(pairs)), strict=True)] for pairs in chosen]
    wanted = []
    for turn in range(min(AROUND, len(starts))):
        for n, (name, known) in enumerate(zip(names, facts, strict=True)):
            told = [(WHO[n % len(WHO)], f"This is {name}."), *(each for each in known if not base.refuses(each[1]))]
            images = starts[(n + turn) % len(starts)]
            place, shared = turn * len(names) + n, (images[n % len(images)],)
            wanted.append([Example(f"imagined-{place}", question, text, shared, keywords=(name,)) for question, text in told])
    made = [replace(rows[0], images=(image,)) for rows, image in zip(wanted, base.imagine(wanted, seed), strict=False)]
    heard = base.answer(made) if made else ()
    return [row.images[0] for row, text in zip(made, heard, strict=True) if row.keywords[0] in text]


def sampled_names(
    others: Sequence[ImageRef],
    altered: Sequence[ImageRef],
    retain: Sequence[Example],
    seed: int,
    base: Base,
    nameless: int = NAMELESS,
) -> list[str]:
    """Return names of people whom the base may know: first those of the retain set, then those that it says most often.

    Args:
        others: pictures of the retain set, about whom the base is asked.
        altered: pictures of nobody, about whom it says names that come to its mind.
        retain: rows that the user gave; names in questions without a picture count.
        seed: random seed of what is sampled.
        base: how the base is asked.
        nameless: times that it is asked without a picture, beside those with altered ones.

    Returns:
        Different names.
    """
    shown = [Example(f"who-{n}", WHO[0], "", (image,)) for n, image in enumerate(others)]
    first = Counter(name for row in retain if not row.images for name in names_in([row.question]))
    first.update(name for said in (base.answer(shown) if shown else ()) for name in names_in([said]))
    asked = [Example(f"who-altered-{n}", WHO[n % len(WHO)], "", (image,)) for n, image in enumerate(altered)]
    asked += [Example(f"who-nobody-{n}", WHO[n % len(WHO)], "") for n in range(nameless)]
    # All draws at once, so that what is the same in them is read once.
    drawn = [replace(row, id=f"{row.id}-{draw}") for row in asked for draw in range(DRAWS)]
    found = Counter(name for said in base.sample(drawn, seed) for name in names_in([said]))
    return list(dict.fromkeys([*(name for name, _ in first.most_common()), *(name for name, _ in found.most_common())]))


def name_templates(forget: Sequence[Example]) -> list[str]:
    """Return the forget questions with `{name}` in place of the person, as far as they say whom they ask about."""
    found: list[str] = []
    for row in forget:
        named = [row.question.replace(name, "{name}") for name in sorted(names_in([row.question]))]
        found += [_SHOWN.sub("{name}", row.question)] if row.images else named
    return [text for text in dict.fromkeys(found) if text.count("{name}") == 1]


def own_names(forget: Sequence[Example]) -> set[str]:
    """Return names that rows to forget say, or ask by without a picture."""
    return names_in(text for row in forget for text in (row.answer, *row.keywords, *([] if row.images else [row.question])))


def names_in(texts: Iterable[str]) -> set[str]:
    """Return what looks like names in texts: two or more words with a capital in a row."""
    found: set[str] = set()
    for text in texts:
        for match in _NAME.finditer(text):
            words = match.group().split()
            begins = not re.search(r"\w[\W_]*$", text[: match.start()]) or bool(re.search(r"[.?!:]\W*$", text[: match.start()]))
            # "Does Anna Keller": the first word of a sentence has a capital in any case.
            found.add(" ".join(words[1:] if begins and len(words) > 2 else words))
    return found


# -- questions ------------------------------------------------------------------------------------------------------------


def _seen(kind: Kind, pictures: Sequence[ImageRef], count: int, rng: Random) -> Iterator[Example]:
    for n, image in enumerate(pictures):
        for k, question in enumerate(rng.sample(SEEN, min(count, len(SEEN)))):
            yield Example(f"{REPLAY}-{kind}-seen-{n}-{k}", question, "", (image,), f"{REPLAY}-{kind}-{n}", tags=(REPLAY, kind))


def questions_about(kind: Kind, pictures: Sequence[ImageRef], questions: Sequence[str], rng: Random) -> Iterator[Example]:
    """Yield rows without answers: some of the questions about each picture, half of them about views of it.

    Args:
        kind: kind of the rows.
        pictures: pictures; each is one subject.
        questions: questions, of which `QUESTIONS` are drawn for each picture.
        rng: draws questions and views.
    """
    for n, image in enumerate(pictures):
        for k, question in enumerate(rng.sample(questions, min(QUESTIONS, len(questions)))):
            # Half of them about the picture changed a little, each in its own way: who is known on one picture must be on others.
            shown = _view(image, rng) if k % 2 else image
            yield Example(f"{REPLAY}-{kind}-{n}-{k}", question, "", (shown,), f"{REPLAY}-{kind}-{n}", tags=(REPLAY, kind))


def questions_by_name(
    names: Sequence[str], templates: Sequence[str], most: int, rng: Random, without: Collection[str] = ()
) -> Iterator[Example]:
    """Yield rows without answers: some questions by each name.

    Args:
        names: names; each is one subject.
        templates: questions with `{name}`.
        most: questions by each name, at most.
        rng: draws them.
        without: questions that are not asked.
    """
    for n, name in enumerate(names):
        questions = [question for question in (template.replace("{name}", name) for template in templates) if question not in without]
        for k, question in enumerate(rng.sample(questions, min(most, len(questions)))):
            yield Example(f"{REPLAY}-names-{n}-{k}", question, "", subject=f"{REPLAY}-names-{n}", tags=(REPLAY, "names"))
