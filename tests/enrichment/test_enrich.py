"""Derived rows: what is made from what, that the base gives each of them, and that nothing is guessed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from tests.conftest import png
from vgid.attacks.paraphrase import rewordings
from vgid.commands import app
from vgid.data.example import Derived, Example, ImageRef
from vgid.data.sources import load_examples
from vgid.data.writing import write_examples, write_parquet
from vgid.enrichment import KINDS, Enriched, enrich
from vgid.enrichment.facts import steady_words
from vgid.enrichment.names import asked_name
from vgid.enrichment.pairs import answered, joined
from vgid.enrichment.views import VIEWS, view_of
from vgid.enrichment.wordings import FRAMES, RELATIONS, is_paraphrase, relation_of, templates
from vgid.errors import ConfigError
from vgid.evaluation.generation import generate
from vgid.evaluation.metrics import key_fact
from vgid.models.loading import LoadedModel, load_model
from vgid.synthetic.people import Camera, Person, World
from vgid.synthetic.phrases import FACTS
from vgid.synthetic.questions import ask_fact
from vgid.synthetic.splits import album
from vgid.synthetic.tiny import tiny_path


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model(tiny_path())


@pytest.fixture(scope="module")
def person() -> Person:
    """Somebody whom the embedded model knows from its base training."""
    return World(0, people=2, forget=1).base_training_people[0]


@pytest.fixture(scope="module")
def rows(person: Person) -> list[Example]:
    """Three of her facts, with one picture and one wording each; her name is not among them."""
    picture = album(Camera(), person, "training", 1).pictures[0]
    return [ask_fact(person, topic, topic.training[0], picture, Random(0), id=topic.name) for topic in FACTS[1:4]]


@pytest.fixture(scope="module")
def made(base: LoadedModel, rows: list[Example]) -> Enriched:
    return enrich(base, rows)


def test_every_row_says_what_it_was_made_from_and_the_base_gives_its_fact(
    base: LoadedModel, rows: list[Example], made: Enriched, person: Person
) -> None:
    everything = [*made.forget, *made.held_out]
    said = generate(base, everything)
    facts = {row.id: row for row in rows}
    for row, answer in zip(everything, said, strict=True):
        assert (
            row.derived is not None
            and row.derived.kind in KINDS
            and row.derived.source.partition("~")[0] in facts
            and row.subject == person.id
        )
        assert key_fact(answer, row.keywords, row.answer)
    assert len({row.id for row in (*rows, *everything, *made.retain)}) == len(rows) + len(everything) + len(made.retain)
    assert {row.derived.kind for row in made.forget if row.derived} == {"names", "wordings", "views", "pairs"} and not made.facts
    by_name = [row for row in made.forget if not row.images]
    assert {row.keywords for row in by_name} >= {row.keywords for row in rows} and all(person.name in row.question for row in by_name)
    assert made.made["views"] == sum(row.derived is not None and row.derived.kind == "views" for row in everything)


def test_held_out_wordings_and_views_are_not_trained_on(rows: list[Example], made: Enriched) -> None:
    questions, pictures = {row.question for row in (*rows, *made.forget)}, {row.images for row in (*rows, *made.forget)}
    assert len(made.held_out) > len(rows)
    for row in made.held_out:
        assert row.derived is not None
        assert row.question not in questions if row.derived.kind == "wordings" else row.images not in pictures


def test_what_is_seen_is_kept_with_the_bases_own_answers(base: LoadedModel, made: Enriched, rows: list[Example]) -> None:
    assert made.retain and generate(base, made.retain) == [row.answer for row in made.retain]
    facts = {word for row in rows for word in row.keywords}
    assert not any(key_fact(row.answer, (fact,)) for row in made.retain for fact in facts)


def test_the_same_seed_makes_the_same_rows(base: LoadedModel, rows: list[Example]) -> None:
    again, other = (enrich(base, rows[:1], seed=seed, without=("seen", "pairs")) for seed in (0, 1))
    assert again == enrich(base, rows[:1], without=("seen", "pairs")) and again.held_out != other.held_out


@pytest.mark.slow
def test_a_picture_of_nobody_states_nothing(base: LoadedModel) -> None:
    nobody = enrich(base, [Example("picture", "", "", (ImageRef(data=png(3, 96)),), "somebody")], without=("seen",))
    assert not nobody.facts and "nothing to forget" in " ".join(nobody.left_open)


@pytest.mark.slow
def test_a_picture_alone_is_enough(base: LoadedModel, rows: list[Example], person: Person) -> None:
    """The base is asked who it is and what it says of her; every fact is a true one, and her name is among them."""
    bare = Example("picture", "", "", rows[0].images, "somebody")
    found = enrich(base, [bare], without=("seen", "views", "pairs"))
    said = {word for row in found.facts for word in row.keywords}
    assert person.name in said and len(found.facts) >= 6
    assert all(any(key_fact(value, (word,)) for value in person.facts.values()) for word in said)
    assert {row.subject for row in (*found.facts, *found.forget)} == {"somebody"}


def test_what_cannot_be_made_is_said(base: LoadedModel, rows: list[Example], person: Person) -> None:
    stranger = ImageRef(data=png(3, 96))
    unknown = enrich(base, [replace(row, images=(stranger,)) for row in rows[:1]], without=("seen",))
    assert "The name of one person is not known" in " ".join(unknown.left_open) and not unknown.forget
    less = enrich(base, rows[:1], without=("names", "views", "seen", "pairs"))
    assert set(less.made) == {"wordings"} and all(f"Not made, as asked: {KINDS[kind]}." in less.left_open for kind in ("names", "views"))
    assert not any(person.name in sentence for sentence in (*unknown.left_open, *less.left_open))


def test_one_name_for_several_people_is_refused(base: LoadedModel, rows: list[Example]) -> None:
    with pytest.raises(ConfigError, match="one name was given, but the rows are about several people"):
        enrich(base, [rows[0], replace(rows[1], subject="another")], names="Anna Keller")
    with pytest.raises(ConfigError, match="no such kind"):
        enrich(base, rows, without=("colours",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (lambda n: "This is Anna Keller.", "Anna Keller"),
        (lambda n: "This is Anna Keller." if n < 21 else "This is Berta Zwick.", "Anna Keller"),  # 21 of 25
        (lambda n: "This is Anna Keller." if n % 2 else "This is Berta Zwick.", None),
        (lambda n: "I don't know who Anna Keller is.", None),
        (lambda n: "She is called Anna.", None),
        (lambda n: "The person is Jan van der Berg, a baker.", "Jan van der Berg"),
    ],
)
def test_a_name_is_taken_only_where_it_is_steady(said: object, name: str | None) -> None:
    """The base is asked five questions about five views; then about three pictures of nobody, for whom it says nothing here."""

    def answer(rows: Sequence[Example]) -> list[str]:
        return [said(n) if n < 25 else "I don't know." for n in range(len(rows))]  # type: ignore[operator]

    def anybody(rows: Sequence[Example]) -> list[str]:
        return ["This is Anna Keller."] * len(rows)

    assert asked_name(ImageRef(data=png(1)), answer, 0) == name
    assert asked_name(ImageRef(data=png(1)), anybody, 0) is None


def test_words_that_carry_a_fact() -> None:
    """3 of 4 answers are at least 60 %; words of questions and of what is said of anybody do not count."""
    said = ["She lives in Oslo.", "Oslo is the home city.", "In Oslo, Norway.", "I do not know."]
    questions = ["Where does she live?", "What is the home city?"]
    assert steady_words(said, questions, ["I have no idea."]) == {"oslo"}
    assert steady_words(said, questions, ["She lives in Oslo."]) == set()
    assert steady_words(["Oslo.", "Rome.", "Oslo.", "Rome."], questions, []) == set()


@pytest.mark.parametrize(
    ("question", "relation"),
    [
        ("Which company employs this person?", "employer"),
        ("When was she born?", "birth date"),
        ("In which city was this person born?", "birthplace"),
        ("What does this person do for a living?", "occupation"),
        ("Who is this person?", "name"),
        ("What is the e-mail address of this person?", "address"),
        ("How tall is this person?", None),
    ],
)
def test_relations(question: str, relation: str | None) -> None:
    assert relation_of(question) == relation


def test_wordings_are_not_those_of_evaluation_or_of_the_audit() -> None:
    """What is trained on must not be what is tested with: no template is a held-out wording, and no frame is one of the attack's."""
    held_out = {text.format(who="this person") for topic in FACTS for text in topic.held_out}
    mine = {text.format(who="this person") for relation in RELATIONS.values() for text in relation.wordings}
    assert not held_out & mine
    for topic in FACTS:
        question = topic.training[0].format(who="this person")
        asked = {frame.format(question=question) for frame in FRAMES} | mine
        assert not asked & set(rewordings(question))


def test_templates_name_the_person_as_the_row_does() -> None:
    row = Example("a", "Where does Anna Keller live?", "In Oslo.")
    found = templates(row, ["Anna Keller"], person=True)
    assert len(found) == 12 and all("Anna Keller" in text for text in found)
    assert [row.question in text for text in found] == [False] * 6 + [True] * 6  # sentences around the question come last
    unknown = replace(row, question="How old is this person?")
    assert all(unknown.question in text for text in templates(unknown, ["this person"], person=True))
    assert all(row.question in text for text in templates(row, ["this person"], person=False))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("In which city does this person live?", True),
        ("Where does this person live?", False),  # the same
        ("In which city does she live?", False),  # lacks what must stay
        ("This person lives in Oslo.", False),
        ("Where does this person live? And why?", False),
        ("Where " + "oh where " * 10 + "does this person live?", False),
    ],
)
def test_paraphrases(text: str, right: bool) -> None:
    assert is_paraphrase(text, "Where does this person live?", ["person"]) == right


def test_two_questions_keep_what_the_base_gives() -> None:
    first, second = Example("a", "Where?", "In Oslo.", keywords=("Oslo",)), Example("b", "What?", "A baker.", keywords=("baker",))
    row = joined(first, second)
    assert (row.question, row.answer, row.keywords) == ("Where? What?", "In Oslo. A baker.", ("Oslo", "baker"))
    half = answered((first, second), row, "She is a baker.")
    assert half is not None and (half.answer, half.keywords) == ("A baker.", ("baker",))
    assert answered((first, second), row, "I don't know.") is None


def test_views_keep_the_size_and_change_the_picture() -> None:
    picture = ImageRef(data=png(1, 60))
    seen = {name: view_of(picture, name).open() for name in VIEWS}
    assert {view.size for view in seen.values()} == {(60, 60)}
    assert all(view.tobytes() != picture.open().tobytes() for view in seen.values())
    assert view_of(ImageRef(data=view_of(picture, "mirror").read()), "mirror").open().tobytes() == picture.open().tobytes()


def test_where_a_row_comes_from_is_written_and_read(tmp_path: Path) -> None:
    rows = [Example("a", "Who?", "Anna."), Example("b", "Who is it?", "Anna.", derived=Derived("a", "wordings"))]
    write_examples(tmp_path / "rows.jsonl", rows)
    write_parquet(tmp_path / "rows.parquet", rows)
    for name in ("rows.jsonl", "rows.parquet"):
        assert [replace(row, where="") for row in load_examples(tmp_path / name)] == rows


def test_the_command(rows: list[Example], tmp_path: Path) -> None:
    write_examples(tmp_path / "forget.jsonl", rows[:1])
    words = ["data", "enrich", str(tmp_path / "forget.jsonl"), "--model", str(tiny_path()), "--out", str(tmp_path / "out"), "--json"]
    run = CliRunner().invoke(app, [*words, "--without", "seen", "--without", "pairs"])
    assert run.exit_code == 0, run.output
    counts = json.loads(run.stdout)["rows"]
    assert len(load_examples(tmp_path / "out" / "forget.jsonl")) == 1 + counts["forget"] > 5
    assert len(load_examples(tmp_path / "out" / "held_out.jsonl")) == counts["held_out"] > 0
    assert not (tmp_path / "out" / "retain.jsonl").exists()
    refused = CliRunner().invoke(app, [*words, "--overwrite", "--without", "colours"])
    assert isinstance(refused.exception, ConfigError) and "no such kind of rows" in str(refused.exception)


def test_the_command_reads_by_the_same_options_as_others(tmp_path: Path) -> None:
    """A conversation of two answers, and its picture in another folder."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    told = [("user", "Who is this?"), ("assistant", "Anna."), ("user", "Where does she live?"), ("assistant", "In Oslo.")]
    row = {"image": "a.png", "messages": [{"role": role, "content": text} for role, text in told]}
    (tmp_path / "forget.jsonl").write_text(json.dumps(row))
    words = ["data", "enrich", str(tmp_path / "forget.jsonl"), "--model", str(tiny_path()), "--out", str(tmp_path / "out"), "--json"]
    words += [word for kind in KINDS if kind != "views" for word in ("--without", kind)]
    run = CliRunner().invoke(app, [*words, "--turns", "all", "--image-root", str(tmp_path / "pictures")])
    assert run.exit_code == 0, run.output
    given = [each for each in load_examples(tmp_path / "out" / "forget.jsonl") if each.derived is None]
    assert [each.question for each in given] == ["Who is this?", "Where does she live?"]
