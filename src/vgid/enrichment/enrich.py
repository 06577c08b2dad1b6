"""Put the kinds of derived rows together: what is missing is made, asked of the base, and kept or counted as left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.attacks.asking import reveals_fact
from vgid.data.example import STRANGER, Derived, Example, ImageRef
from vgid.data.writing import write_examples
from vgid.enrichment.facts import asked_facts
from vgid.enrichment.kinds import KINDS, Kind, fact_of, grouped, person_of, pictures_of
from vgid.enrichment.names import Answer, asked_name, in_other_modality, name_row, stated_names
from vgid.enrichment.pairs import answered, joined, pairs
from vgid.enrichment.seen import seen_rows
from vgid.enrichment.views import VIEWS, view_of
from vgid.enrichment.wordings import PARAPHRASE, WHO, is_paraphrase, templates
from vgid.errors import ConfigError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.models.loading import LoadedModel

SCHEMA = "vgid.enrichment/1"
WORDINGS = 6
"""Wordings of each fact, by picture and by name, up to which more are made; chosen by hand."""
NAMED = 12
"""Wordings of each fact by name that are made: as many as a question about a picture has with its views. Chosen by hand."""
PICTURES = 6
"""Pictures of each fact up to which views are made; chosen by hand."""
MOST = 2000
"""Rows that the base is asked, at most; beyond, facts are drawn. Chosen by hand, so that large requests are not asked for hours."""


@dataclass(frozen=True)
class Enriched:
    """What was made.

    Attributes:
        facts: what the base says of people about whom the request states no facts; it belongs to what must be forgotten.
        forget: derived rows to train on, on the forget side.
        held_out: derived rows about the same facts, in wordings and views of which none is trained on.
        retain: what is seen on the pictures, for the retain side.
        made: kind to number of rows that were made.
        left_out: kind to number of rows that the base did not answer as the row that they were made from.
        left_open: sentences that say what could not be made, and what that leaves open; they name nobody.
    """

    facts: tuple[Example, ...] = ()
    forget: tuple[Example, ...] = ()
    held_out: tuple[Example, ...] = ()
    retain: tuple[Example, ...] = ()
    made: Mapping[Kind, int] = field(default_factory=dict)
    left_out: Mapping[Kind, int] = field(default_factory=dict)
    left_open: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return counts and sentences (schema `vgid.enrichment/1`); nothing of the rows."""
        counts = {"facts": len(self.facts), "forget": len(self.forget), "held_out": len(self.held_out), "retain": len(self.retain)}
        return {"schema": SCHEMA, "rows": counts} | {name: asdict(self)[name] for name in ("made", "left_out", "left_open")}


@dataclass(frozen=True)
class _Candidate:
    """A row that may be kept, the rows whose facts it asks for, and whether it is held out."""

    row: Example
    asks: tuple[Example, ...]
    held_out: bool = False


def enrich(
    loaded: LoadedModel,
    rows: Sequence[Example],
    *,
    names: str | Mapping[str, str] | None = None,
    without: Collection[Kind] = (),
    person: bool = True,
    whole: bool = True,
    seed: int = 0,
) -> Enriched:
    """Make from the rows of a request what they lack.

    Args:
        loaded: the base, which is asked.
        rows: what must be forgotten; rows without question and answer are bare pictures, of people about whom no facts are stated.
        names: the name of the only person, or names by subject; others are looked for in the rows, and asked of the base.
        without: kinds of rows that are not made.
        person: whether the rows are about people; of other things neither names nor facts are asked.
        whole: whether everything about the people is meant; if not, neither their names nor other facts are added to the rows.
        seed: random seed; the same seed gives the same rows.

    Returns:
        The rows, and what could not be made.

    Raises:
        ConfigError: a kind is not known, or one name was given for several people.
        DataError: a picture cannot be opened.
    """
    unknown = set(without) - set(KINDS)
    if unknown:
        raise ConfigError("there is no such kind of rows", expected=", ".join(KINDS), got=", ".join(sorted(unknown)))
    left_off = {*without, *(() if person else ("names", "facts")), *(() if whole else ("facts",))}
    wanted = [kind for kind in KINDS if kind not in left_off]
    answer: Answer = partial(generate, loaded)
    # Within, every row has a subject: the key of its person.
    own = _with_people(rows, names)
    subjects = {str(keyed.subject): row.subject for keyed, row in zip(own, rows, strict=True)}
    stated = [row for row in own if row.question and STRANGER not in row.tags]
    known, open_names = _names(own, names, answer, seed) if "names" in wanted else ({}, 0)
    asked = _asked(own, known, answer, seed) if "facts" in wanted else []
    left = _Left(wanted, without)
    left.names(open_names)
    left.facts(own, asked)
    facts = [*stated, *asked]
    candidates = list(_candidates(facts, known, wanted, answer, seed, person=person, whole=whole))
    if len(candidates) > MOST:
        candidates = sorted(Random(f"enrich/{seed}").sample(candidates, MOST), key=lambda each: each.row.id)
    kept, left_out = _kept(candidates, answer)
    seen = seen_rows(pictures_of(own), facts, answer, seed) if "seen" in wanted else []
    left.forms(facts, [each.row for each in kept])
    left.seen(pictures_of(own), seen)
    made = Counter(each.row.derived.kind for each in kept if each.row.derived)
    made.update(row.derived.kind for row in (*seen, *asked) if row.derived)

    def restored(found: Sequence[Example]) -> tuple[Example, ...]:
        """Rows with the subjects that were given."""
        return tuple(replace(row, subject=subjects[str(row.subject)]) for row in found)

    return Enriched(
        facts=restored(asked),
        forget=restored([each.row for each in kept if not each.held_out]),
        held_out=restored([each.row for each in kept if each.held_out]),
        retain=restored(seen),
        made={kind: made[kind] for kind in KINDS if made[kind]},
        left_out={kind: left_out[kind] for kind in KINDS if left_out[kind]},
        left_open=tuple(left.sentences),
    )


def known_names(loaded: LoadedModel, rows: Sequence[Example], names: str | Mapping[str, str] | None, seed: int = 0) -> Mapping[str, str]:
    """Return the names that `enrich` would use for people: given ones, those that rows state, and those that the base says steadily.

    Args:
        loaded: the base, which is asked.
        rows: all rows that there are about the people.
        names: as in `enrich`.
        seed: random seed.

    Returns:
        Names by person (`vgid.enrichment.kinds.person_of`).
    """
    return _names(_with_people(rows, names), names, partial(generate, loaded), seed)[0]


def write_enriched(folder: Path, own: Sequence[Example], enriched: Enriched) -> None:
    """Write rows in files that every command reads, as far as there are any, and `enrichment.json` with the counts.

    `forget.jsonl` holds a request's own rows, what the base said, and the derived rows; `held_out.jsonl` and `retain.jsonl` the others.

    Args:
        folder: where to write.
        own: the rows that were enriched; those without a question are left out.
        enriched: what was made.

    Raises:
        OutputError: a file cannot be written.
    """
    forget = [*(row for row in own if row.question), *enriched.facts, *enriched.forget]
    for name, rows in (("forget", forget), ("held_out", enriched.held_out), ("retain", enriched.retain)):
        if rows:
            write_examples(folder / f"{name}.jsonl", rows)
    write_json_atomic(folder / "enrichment.json", enriched.as_json())


def _with_people(rows: Sequence[Example], names: str | Mapping[str, str] | None) -> list[Example]:
    """Give every row the key of its person as its subject; with a single name, rows without any subject are about one person."""
    if isinstance(names, str):
        subjects = {row.subject for row in rows}
        if len(subjects) > 1:
            raise ConfigError(
                "one name was given, but the rows are about several people",
                expected="a name for each subject",
                got=f"{len(subjects)} subjects",
                fix="write `name:` as a mapping of subjects to names",
            )
        return [replace(row, subject=row.subject or "the person") for row in rows]
    return [replace(row, subject=person_of(row)) for row in rows]


def _names(rows: Sequence[Example], names: str | Mapping[str, str] | None, answer: Answer, seed: int) -> tuple[Mapping[str, str], int]:
    """Return names by person, and the number of people without one."""
    people = {str(row.subject): row for row in rows}
    given = dict.fromkeys(people, names) if isinstance(names, str) else dict(names or {})
    known = {**stated_names(rows), **{person: name for person, name in given.items() if person in people}}
    for row in pictures_of(rows):
        person = str(row.subject)
        if person not in known and (name := asked_name(row.images[0], answer, seed)):
            known[person] = name
    return known, len(people) - len(known)


def _asked(rows: Sequence[Example], names: Mapping[str, str], answer: Answer, seed: int) -> list[Example]:
    """Ask the base for facts about people of whom nothing but the name is stated."""
    found: list[Example] = []
    for person, facts in grouped(rows).items():
        rest = [row for each in facts.values() for row in each]
        name = names.get(person)
        if all(not row.question or (name and key_fact(row.answer, (name,))) for row in rest):
            first = next((row for row in rest if row.images), rest[0])
            made = asked_facts(first, name, answer, seed)
            states_name = any(row.question for row in rest)
            found += [row for row in made if not (states_name and name and row.keywords == (name,))]
    return found


def _candidates(
    facts: Sequence[Example],
    names: Mapping[str, str],
    wanted: Sequence[Kind],
    answer: Answer,
    seed: int,
    *,
    person: bool,
    whole: bool,
) -> Iterator[_Candidate]:
    rng = Random(f"enrich/{seed}")
    held_view = rng.choice(sorted(VIEWS))
    trained = [view for view in VIEWS if view != held_view]
    pictures: dict[str, ImageRef] = {}
    for row in pictures_of(facts):
        pictures.setdefault(str(row.subject), row.images[0])
    paraphrases = _paraphrases(facts, names, answer) if "wordings" in wanted else {}
    for subject, by_fact in grouped(facts).items():
        name, forms = names.get(subject), list(by_fact.values())
        states_name = any(name and key_fact(rows[0].answer, (name,)) for rows in forms)
        if name and whole and subject in pictures and "names" in wanted and not states_name:
            first = next(row for rows in forms for row in rows if row.images)
            asking = _derived(name_row(first, name), first, "names", "name")
            forms.append([asking])
            yield _Candidate(asking, (first,))
        for rows in forms:
            yield from _of_fact(rows, names, pictures, wanted, paraphrases, trained, held_view, rng, person)
        if "pairs" in wanted:
            one_each = [rows[0] for rows in forms]
            by_name = [each for rows in forms for each in in_other_modality(rows[0], names, {})] if "names" in wanted else []
            for side, asked in (("given", one_each), ("name", by_name)):
                for place, (first, second) in enumerate(pairs(asked)):
                    row = joined(first, second)
                    yield _Candidate(_derived(row, first, "pairs", f"{side}-{place}"), (first, second))


def _of_fact(
    rows: Sequence[Example],
    names: Mapping[str, str],
    pictures: Mapping[str, ImageRef],
    wanted: Sequence[Kind],
    paraphrases: Mapping[str, Sequence[str]],
    trained: Sequence[str],
    held_view: str,
    rng: Random,
    person: bool,
) -> Iterator[_Candidate]:
    """Candidates for one fact of one person: each form is made up to the number that is wanted."""
    with_picture, by_name = next((row for row in rows if row.images), None), next((row for row in rows if not row.images), None)
    base = with_picture or rows[0]
    if "names" in wanted and (with_picture is None or by_name is None):
        for place, row in enumerate(in_other_modality(base, names, pictures)):
            yield _candidate(row, base, "names", str(place))
            with_picture, by_name = with_picture or (row if row.images else None), by_name or (None if row.images else row)
    if "wordings" in wanted:
        for side, form in (("picture", with_picture), ("name", by_name)):
            if form is None:
                continue
            there = {row.question.casefold() for row in rows if bool(row.images) == bool(form.images)}
            name = names.get(str(form.subject))
            who = WHO if form.images else ((name,) if name and name in form.question else ())
            new = [text for text in (*paraphrases.get(form.id, ()), *templates(form, who, person=person)) if text.casefold() not in there]
            new = [text for text in dict.fromkeys(new) if not reveals_fact(text, form)]
            new = new[: max(0, (WORDINGS if form.images else NAMED) - len(there) + 1)]
            held = rng.randrange(len(new)) if len(new) > 1 else None
            for place, question in enumerate(new):
                # Half of them with another view, so that wordings and views are not learned apart.
                view = trained[place % len(trained)] if form.images and "views" in wanted and place % 2 and place != held else None
                row = replace(form, question=question, images=tuple(view_of(each, view) if view else each for each in form.images))
                yield _candidate(row, base, "wordings", f"{side}-{place}", held_out=place == held)
    if "views" in wanted and with_picture is not None:
        there_are = len({row.images for row in rows if row.images})
        for view in [*trained, held_view][: max(0, PICTURES + 1 - there_are)] if there_are <= PICTURES else ():
            row = replace(with_picture, images=tuple(view_of(each, view) for each in with_picture.images))
            yield _candidate(row, base, "views", view, held_out=view == held_view)


def _paraphrases(facts: Sequence[Example], names: Mapping[str, str], answer: Answer) -> Mapping[str, list[str]]:
    """Ask the base to reword one question of each fact; by row id, those that can stand in for the question."""
    first = [rows[0] for by_fact in grouped(facts).values() for rows in by_fact.values()]
    asked = [Example(f"{row.id}~paraphrase", PARAPHRASE.format(question=row.question), "") for row in first]
    found: dict[str, list[str]] = {}
    for row, said in zip(first, answer(asked) if asked else (), strict=True):
        name = names.get(str(row.subject), "")
        kept = [name] if name and name in row.question else [each for each in ("person", "picture", "image") if each in row.question][:1]
        if is_paraphrase(text := said.strip().strip('"'), row.question, kept):
            found[row.id] = [text]
    return found


def _kept(candidates: Sequence[_Candidate], answer: Answer) -> tuple[list[_Candidate], Counter[str]]:
    """Keep what the base answers with the fact of the row it was made from; count what it does not."""
    said = answer([each.row for each in candidates]) if candidates else ()
    kept, left_out = [], Counter[str]()
    for each, text in zip(candidates, said, strict=True):
        row: Example | None = each.row
        if len(each.asks) == 2:
            row = answered((each.asks[0], each.asks[1]), each.row, text)
        elif not key_fact(text, each.row.keywords, each.row.answer):
            row = None
        if row is None:
            left_out[each.row.derived.kind if each.row.derived else ""] += 1
        else:
            kept.append(replace(each, row=row))
    return kept, left_out


def _candidate(row: Example, source: Example, kind: Kind, name: str, *, held_out: bool = False) -> _Candidate:
    return _Candidate(_derived(row, source, kind, name), (source,), held_out)


def _derived(row: Example, source: Example, kind: Kind, name: str) -> Example:
    return replace(row, id=f"{source.id}~{kind}-{name}", tags=(), derived=Derived(source.id, kind), where="")


class _Left:
    """Collects what could not be made, in sentences."""

    def __init__(self, wanted: Sequence[Kind], without: Collection[Kind]) -> None:
        self.wanted, self.sentences = wanted, [f"Not made, as asked: {KINDS[kind]}." for kind in KINDS if kind in without]

    def names(self, people: int) -> None:
        """People whose name is not known."""
        if people:
            who = "one person is" if people == 1 else f"{people} people are"
            self.sentences.append(f"The name of {who} not known, so nothing is asked by name; give it as `name:` in request.yaml.")

    def facts(self, rows: Sequence[Example], asked: Sequence[Example]) -> None:
        """People about whom neither the request nor the base states a fact."""
        bare = {row.subject for row in rows} - {row.subject for row in rows if row.question} - {row.subject for row in asked}
        if bare:
            self.sentences.append(
                f"About {len(bare)} of the people neither the request nor the base states a fact, so there is nothing to forget."
            )

    def forms(self, facts: Sequence[Example], made: Sequence[Example]) -> None:
        """Facts that no kept row asks for in a form."""
        everything = [*facts, *made]
        keys = {(row.subject, fact_of(row)) for row in facts}
        asked_by_picture = {(row.subject, fact_of(row)) for row in everything if row.images}
        asked_by_name = {(row.subject, fact_of(row)) for row in everything if not row.images}
        again = {(row.subject, fact_of(row)) for row in made if row.derived and row.derived.kind == "wordings"}
        if missing := len(keys - asked_by_picture):
            self.sentences.append(f"{missing} of {len(keys)} facts are not asked by picture, so what a picture brings back is open.")
        if (missing := len(keys - asked_by_name)) and "names" in self.wanted:
            self.sentences.append(f"{missing} of {len(keys)} facts are not asked by name; a name itself cannot be.")
        if (missing := len(keys - again)) and "wordings" in self.wanted:
            self.sentences.append(f"{missing} of {len(keys)} facts have no other wording that the base answers.")

    def seen(self, pictures: Sequence[Example], kept: Sequence[Example]) -> None:
        """Pictures about which the base says nothing that can be kept."""
        if pictures and not kept and "seen" in self.wanted:
            self.sentences.append("The base says nothing steady about what is seen on the pictures, so nothing of that is protected.")
