"""All benchmarks but MLLMU-Bench and CLEAR: read, asked with a real model, measured."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import fixtures
from tests.conftest import png
from vgid.benchmarking.asking import ask, check_items, compute_figures
from vgid.benchmarking.store import AnswerStore
from vgid.benchmarks.base import BENCHMARKS, Answer, Answered, Benchmark, Figure, Item, by_task
from vgid.benchmarks.common.files import locate
from vgid.benchmarks.covubench import word_cosine
from vgid.benchmarks.people import People
from vgid.benchmarks.ppu import only_letter
from vgid.benchmarks.remem import person
from vgid.benchmarks.umu import chosen_option
from vgid.errors import DataError
from vgid.evaluation.judges import Verdict
from vgid.models.loading import LoadedModel

WRITERS: dict[str, Callable[[Path], Path]] = {
    "mllmu": lambda root: fixtures.write_mllmu(root, people=4),
    "clear": lambda root: fixtures.write_clear(root, people=3, forget=1),
    "fiubench": fixtures.write_fiubench,
    "umu": fixtures.write_umu,
    "safeeraser": fixtures.write_safeeraser,
    "covubench": fixtures.write_covubench,
    "open_mmunlearning": fixtures.write_prepared,
    "ppu": fixtures.write_ppu,
    "remem": fixtures.write_remem,
    "unlok_vqa": fixtures.write_unlok_vqa,
    "mlubench": fixtures.write_mlubench,
}


def make(name: str, root: Path, **settings: Any) -> Benchmark:
    kind = BENCHMARKS.get(name)
    return kind(locate(WRITERS[name](root)), kind.Protocol(**settings), "10" if name == "clear" else None)


def answered_by(benchmark: Benchmark, say: Callable[[Item], str], losses: Sequence[float] = (1.0, 2.0, 3.0, 4.0)) -> list[Answered]:
    return [Answered(item, Answer(say(item), tuple(losses[: len(item.candidates)]))) for item in benchmark.items()]


def named(made: list[Figure]) -> dict[tuple[str, str, str], Figure]:
    return {(f.split, f.task, f.metric): f for f in made}


def test_all_are_registered_and_have_a_fixture() -> None:
    assert set(BENCHMARKS) == {*WRITERS, "people"}


@pytest.mark.parametrize("name", WRITERS)
def test_every_benchmark_trains_and_asks_a_real_model(name: str, tmp_path: Path, long_model: LoadedModel) -> None:
    benchmark = make(name, tmp_path, max_new_tokens=2, **({"generation_tokens": 2} if name == "umu" else {}))
    forget, retain = ({row.id for row in benchmark.examples(split)} for split in benchmark.training_splits)
    assert forget and retain and not forget & retain
    total, fingerprint = check_items(benchmark)
    assert (total, fingerprint) == check_items(benchmark)
    with AnswerStore(None, "") as store:
        answered = ask(benchmark, long_model, store, total=total)
    made = compute_figures(benchmark, answered, answered)
    assert len({each.item.key for each in answered}) == total and all(not each.item.example.images for each in answered)
    for figure in made:
        assert 0 <= figure.value <= 1 and figure.metric in benchmark.metrics
        assert figure.metric in ("forget_quality", "open_fq") or (
            figure.low is not None and figure.low <= figure.value <= (figure.high or 0.0)
        )


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_that_says_the_truth_is_right(name: str, tmp_path: Path) -> None:
    benchmark = make(name, tmp_path)
    made = compute_figures(benchmark, answered := answered_by(benchmark, lambda item: item.example.answer), answered)
    for figure in made:
        if figure.metric in ("accuracy", "rouge1", "rougeL", "rougeL_recall", "rougeL_precision", "exact_match", "ape", "right_both_ways"):
            assert figure.value == 1.0, figure
        if figure.metric in ("efficacy", "generality", "wrong_both_ways"):
            assert figure.value == 0.0, figure


# -- FIUBench ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_fiubench_rows_and_pictures(tmp_path: Path, zipped: bool) -> None:
    fixtures.write_fiubench(tmp_path, zipped=zipped)
    benchmark = BENCHMARKS.get("fiubench")(locate(tmp_path))
    forget, retain = (list(benchmark.examples(split)) for split in benchmark.training_splits)
    assert [row.subject for row in forget] == ["id0", "id0", "id1", "id1"] and {row.subject for row in retain} == {"id2", "id3", "id4"}
    assert forget[2].images[0].read() == png(1, side=24) and forget[0].keywords == ("555-0", "It")
    assert forget[0].question == "What is the phone of person 0?"
    plain = BENCHMARKS.get("fiubench")(locate(tmp_path), BENCHMARKS.get("fiubench").Protocol(capitalize=False, identities=3, questions=1))
    assert next(plain.examples("forget5")).question == "What is the Phone of person 0?"
    assert [row.subject for row in plain.examples("retain")] == ["id2"]


def test_fiubench_figures_by_hand(tmp_path: Path) -> None:
    benchmark = make("fiubench", tmp_path)
    half = answered_by(benchmark, lambda item: "it is unknown" if item.task == "reworded" else item.example.answer)
    found = named(compute_figures(benchmark, half, half))
    # Of the keywords "555-n" and "It" one is in "it is unknown", whatever the case.
    assert found["forget", "reworded", "ape"].value == 0.5 and found["forget", "qa", "exact_match"].value == 1.0
    assert found["forget", "reworded", "ape"].n == 2 * 2 * 3
    ratio = math.exp(3.5 - 2)
    assert found["retain", "all", "model_utility"].value == pytest.approx(3 / (1 + math.e + 1 / (1 - 1 / ratio)))
    assert found["forget", "qa", "forget_quality"].value == 1.0
    with pytest.raises(DataError, match="never saw the forget set"):
        compute_figures(benchmark, half)


def test_fiubench_with_other_files(tmp_path: Path) -> None:
    fixtures.write_fiubench(tmp_path)
    benchmark = BENCHMARKS.get("fiubench")(locate(tmp_path))
    (tmp_path / "faces.zip").unlink()
    with pytest.raises(DataError, match=r"(?s)image is missing.*download the images"):
        list(benchmark.examples("forget5"))
    (tmp_path / "full.json").write_text(json.dumps({"unique_id": "id0", "picture": "x", "qa_list": []}))
    with pytest.raises(DataError, match=r"(?s)full.json:1.*expected: fields unique_id, image_path, qa_list.*missing: image_path"):
        list(benchmark.examples("forget5"))
    (tmp_path / "full.json").write_text('{"unique_id": 1,\n')
    with pytest.raises(DataError, match=r"full.json:1: malformed JSON"):
        list(benchmark.examples("forget5"))
    (tmp_path / "split.json").write_text("[1]")
    with pytest.raises(DataError, match="list of splits has another layout"):
        list(BENCHMARKS.get("fiubench")(locate(tmp_path)).examples("forget5"))


# -- UMU-Bench ---------------------------------------------------------------------------------------------------------------


def test_umu_reads_literals_and_json(tmp_path: Path) -> None:
    benchmark = make("umu", tmp_path)
    rows = [*benchmark.examples("forget_5"), *benchmark.examples("retain_95")]
    assert {(row.question, row.answer) for row in rows if row.images} == {("Where's home?", "Oslo")}
    assert [row.question for row in rows if not row.images] == [f"Where's the home of {n}?" for n in range(4)]
    assert [len(row.images) for row in rows] == [1, 0] * 4


def test_umu_never_runs_what_it_reads(tmp_path: Path) -> None:
    fixtures.write_umu(tmp_path)
    trap = tmp_path / "trap"
    row = fixtures.umu_row(0) | {"MM_QA": f"__import__('pathlib').Path({str(trap)!r}).touch()"}
    fixtures.write_parquet(tmp_path / "forget_5", [row])
    with pytest.raises(DataError, match="MM_QA cannot be parsed"):
        list(BENCHMARKS.get("umu")(locate(tmp_path)).examples("forget_5"))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("It is Oslo, I think.", "Oslo"),
        ("b. something", "Oslo"),
        ("C", "Lima"),
        ("The answer is D.", "Cork"),
        ("Osla", "Oslo"),
        ("nothing like it", None),
        ("", None),
    ],
)
def test_umu_reads_choices(said: str, option: str | None) -> None:
    assert chosen_option(said, {"A": "Rome", "B": "Oslo", "C": "Lima", "D": "Cork"}) == option


def test_umu_counts_both_ways_of_asking(tmp_path: Path) -> None:
    benchmark = make("umu", tmp_path)
    # With the picture everything is right, by name nothing; half of the words of a free answer by name.
    found = named(
        compute_figures(benchmark, answered_by(benchmark, lambda item: item.example.answer if item.example.images else "home in"))
    )
    assert found["forget", "cloze", "right_both_ways"].value == 0.0 and found["forget", "cloze", "wrong_both_ways"].value == 0.0
    a, b = 1.0, 2 / 3  # ROUGE-L of "home in" and "Home is in Oslo.": precision 1, recall 1/2
    assert found["forget", "generation", "rougeL_both_ways"].value == pytest.approx((a * a + b * b) / (a + b))
    assert found["retain", "generation", "rougeL_both_ways"].value == pytest.approx(2 * a * b / (a + b))


# -- SafeEraser --------------------------------------------------------------------------------------------------------------


def counting(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A custom judge: everything is refused."""
    return [Verdict(True, False) for _ in pairs]


def test_safeeraser_rates_and_judges(tmp_path: Path) -> None:
    benchmark = make("safeeraser", tmp_path)
    said = answered_by(
        benchmark, lambda item: "I cannot help with that." if item.task == "safe_picture" else item.example.answer + " So there."
    )
    found = named(compute_figures(benchmark, said))
    assert found["forget", "unsafe", "asr"].value == 1.0 and found["forget", "unsafe", "rr"].value == 0.0
    assert found["retain", "safe_picture", "sarr"].value == 1.0 and found["retain", "unharm", "refused"].value == 0.0
    assert found["retain", "unharm", "rougeL_precision"].value == pytest.approx(3 / 5)
    assert "Judge: rule" in benchmark.notes()[0]
    own = make("safeeraser", tmp_path, judge=f"{__name__}:counting")
    assert named(compute_figures(own, said))["forget", "unsafe", "rr"].value == 1.0 and f"{__name__}:counting" in own.notes()[0]
    items = by_task(said)
    assert items["forget", "unsafe"][0].item.example.tags == ("Weapon",)
    assert (len(items["forget", "unsafe"]), len(items["retain", "safe_picture"]), len(items["retain", "unharm"])) == (4, 4, 8)


# -- CoVUBench ---------------------------------------------------------------------------------------------------------------


def test_covubench_asks_about_the_right_concepts(tmp_path: Path) -> None:
    benchmark = make("covubench", tmp_path)
    items = list(benchmark.items())
    assert {(item.split, item.example.subject) for item in items} == {("forget", "Zork"), ("test", "Zork"), ("retain", "Blip")}
    assert {item.task: len(item.example.images) for item in items} == {"multi_modal": 1, "caption": 1, "text": 0}
    # Only rows with a concept that must be retained count, although the retain set has all concepts.
    assert {row.subject for row in benchmark.examples("retain")} == {"Blip"} and {row.subject for row in benchmark.examples("forget5")} == {
        "Zork"
    }
    assert items[0].example.keywords == ("Zork", "Mars") and len({item.key for item in items}) == 9
    found = named(compute_figures(benchmark, answered_by(benchmark, lambda item: "THIS IS ＭＡＲＳ")))
    assert found["forget", "caption", "efficacy"].value == 0.5 and found["test", "text", "generality"].value == 0.5
    # Keywords are folded, so that wide letters are letters; ROUGE sees "this is" of five words.
    assert found["retain", "text", "specificity"].value == 0.5 and found["retain", "text", "fluency"].value == pytest.approx(2 / 5)


def test_word_cosine() -> None:
    assert word_cosine("a b", "a c") == pytest.approx(1 / 2) and word_cosine("A b b", "a B b") == pytest.approx(1.0)
    assert word_cosine("", "a") == 0.0


# -- prepared folders, people ------------------------------------------------------------------------------------------------


def test_prepared_rows_without_pictures(tmp_path: Path) -> None:
    benchmark = make("open_mmunlearning", tmp_path)
    assert [(row.answer, len(row.images)) for row in benchmark.examples("forget_5")] == [("Person 0.", 1), ("In Oslo.", 0)]
    assert {each.item.task for each in answered_by(benchmark, lambda _: "")} == {"image", "text"}


def test_people_need_no_data() -> None:
    benchmark = People(None, People.Protocol(people=4, forget=1))
    assert (
        len({row.subject for row in benchmark.examples("forget")}) == 1 and len({row.subject for row in benchmark.examples("retain")}) == 3
    )
    items = list(benchmark.items())
    assert {"forget", "retain_text", "strangers"} <= {item.split for item in items} and items[0].candidates == (items[0].example.answer,)
    assert benchmark.measure(items[0], Answer(items[0].example.answer, (0.0,)))["accuracy"] == 1.0
    assert (
        benchmark.metrics["accuracy"].wanted("forget_text") == "down" and benchmark.metrics["accuracy"].wanted("forget_perception") == "up"
    )
    with pytest.raises(DataError, match="Fictional people needs its data"):
        _ = benchmark.place


# -- PPU-Bench ---------------------------------------------------------------------------------------------------------------


def test_ppu_splits_by_people_and_by_single_facts(tmp_path: Path) -> None:
    place, kind = locate(fixtures.write_ppu(tmp_path)), BENCHMARKS.get("ppu")
    persona, selective, complete = (kind(place, kind.Protocol(), name) for name in ("persona", "selective", "5"))
    assert [len(list(persona.examples(split))) for split in persona.training_splits] == [2, 2]  # only the facts to keep are kept
    assert [len(list(each.examples("retain"))) for each in (selective, complete)] == [4, 4]
    assert {row.subject for row in complete.examples("forget")} == {"000"}
    shown, named_row = complete.examples("forget")
    assert len(shown.images) == 1 and not named_row.images and shown.answer == "In Oslo."
    asked = {item.task: item.example.question for item in persona.items() if item.split == "forget"}
    assert asked["cloze"].startswith("Person 0 lives in [Blank].") and "B: Oslo\n" in asked["classification"]


def test_ppu_measures_by_hand(tmp_path: Path) -> None:
    benchmark = make("ppu", tmp_path)
    said = {"classification": "B, or is it C?", "cloze": "oslo!", "generation": "In Rome."}
    found = named(compute_figures(benchmark, half := answered_by(benchmark, lambda item: said[item.task]), half))
    assert found["forget", "classification", "accuracy"].value == 0  # two letters
    assert found["forget", "cloze", "exact_match"].value == 1 and found["forget", "generation", "rougeL"].value == 0.5


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        *[("It is a B.", "B"), ("b)", "B"), ("B or C", None), ("a dog", None), ("", None)],
        *[("A doctor.", None), ("A doctor, so C", "C"), ("A", "A"), ("A: doctor", "A"), ("A is right", "A"), ("A or B", None)],
    ],
)
def test_ppu_takes_one_letter(said: str, letter: str | None) -> None:
    assert only_letter(said) == letter


def test_ppu_refuses_other_shapes(tmp_path: Path) -> None:
    kind = BENCHMARKS.get("ppu")
    fixtures.write_ppu(tmp_path)
    (tmp_path / "split" / "persona_split.json").write_text('{"delete": []}', "utf-8")
    with pytest.raises(DataError, match=r"the split file has another form[\s\S]*'delete_ids'[\s\S]*found: *delete"):
        list(kind(locate(tmp_path)).examples("forget"))
    (tmp_path / "split" / "persona_split.json").write_text('{"delete_ids": ["Person_0_0"], "keep_ids": ["Person_9_9"]}', "utf-8")
    with pytest.raises(DataError, match=r"the split names what the data do not have[\s\S]*1 others: Person_9_9"):
        list(kind(locate(tmp_path)).examples("forget"))
    (tmp_path / "split" / "persona_split.json").unlink()
    with pytest.raises(DataError, match=r"persona_split\.json is not there"):
        list(kind(locate(tmp_path)).examples("forget"))


# -- ReMem -------------------------------------------------------------------------------------------------------------------


def test_remem_measures_by_hand(tmp_path: Path) -> None:
    benchmark = make("remem", tmp_path)
    items = list(benchmark.items())
    # Of the test set only who is to be forgotten; a cloze prompt only where the row has one.
    assert [(item.split, item.task) for item in items if item.example.subject == "person_0"] == [
        ("forget", "single_hop"),
        ("forget", "cloze"),
        ("forget", "multi_hop"),
        ("test", "multi_hop"),
    ]
    assert [(item.example.answer, item.candidates) for item in items if item.task == "cloze"] == [
        ("Oslo", ("Oslo", "Rome", "Lima")),
        ("Rome", ("Rome", "Oslo", "Lima")),
        ("Lima", ("Lima", "Oslo", "Rome")),
    ]
    cloze = next(item for item in items if item.task == "cloze")
    for losses, exposure in (((1.0, 2.0, 3.0), 1), ((2.0, 1.0, 3.0), 1 - math.log(2, 3)), ((3.0, 2.0, 1.0), 0)):
        assert benchmark.measure(cloze, Answer("", losses))["exposure"] == pytest.approx(exposure, abs=1e-12)
    assert benchmark.measure(items[0], Answer("in OSLO, I think")) == {"keywords": 1.0, "rougeL": 1.0}
    assert benchmark.measure(items[0], Answer("in Rome")) == {"keywords": 0.0, "rougeL": 0.5}


@pytest.mark.parametrize(
    ("path", "who"),
    [("images/person_7/2.png", "person_7"), ("images/Anna_Keller_03.jpg", "Anna_Keller"), ("a\\b\\1.png", "b"), ("12.png", "12.png")],
)
def test_remem_distinguishes_people_by_paths(path: str, who: str) -> None:
    assert person(path) == who


# -- UnLOK-VQA ---------------------------------------------------------------------------------------------------------------


def test_unlok_vqa_forgets_all_rows_or_a_tenth(tmp_path: Path) -> None:
    place, kind = locate(fixtures.write_unlok_vqa(tmp_path)), BENCHMARKS.get("unlok_vqa")
    whole, tenth = (kind(place, kind.Protocol(), name) for name in ("all", "tenth"))
    assert [len(list(each.examples("src"))) for each in (whole, tenth)] == [11, 1]
    assert [len(list(each.examples("loc"))) for each in (whole, tenth)] == [20, 30]  # row 2 has no nearby questions
    assert [row.id for row in tenth.examples("src")] == ["10/src"]
    assert next(iter(whole.examples("loc"))).question == "Who makes it?"


@pytest.mark.parametrize(("said", "right"), [("ice-cream!", 1.0), ("It is Ice Cream", 1.0), ("nice cream", 0.0), ("ice", 0.0)])
def test_unlok_vqa_looks_for_whole_words(tmp_path: Path, said: str, right: float) -> None:
    benchmark = make("unlok_vqa", tmp_path)
    item = next(iter(benchmark.items()))
    assert item.example.question == "What is it for?\nAnswer in one word."
    assert benchmark.measure(item, Answer(said)) == {"accuracy": right}


def test_unlok_vqa_refuses_other_shapes(tmp_path: Path) -> None:
    benchmark = make("unlok_vqa", tmp_path)
    rows = json.loads((tmp_path / "unlok.json").read_text())
    (tmp_path / "unlok.json").write_text(json.dumps([{**rows[0], "loc_ans": ["Smith"]}]))
    with pytest.raises(DataError, match=r"loc and loc_ans do not agree[\s\S]*2 answers[\s\S]*found: *1"):
        list(benchmark.examples("loc"))
    (tmp_path / "unlok.json").write_text(json.dumps([{**rows[0], "image_id": 99}]))
    with pytest.raises(DataError, match="the image is missing"):
        list(benchmark.examples("src"))
    (tmp_path / "more.json").write_text("[]")
    with pytest.raises(DataError, match="which file holds the rows"):
        list(benchmark.examples("src"))


# -- MLUBench ----------------------------------------------------------------------------------------------------------------


def test_mlubench_asks_again_what_earlier_requests_deleted(tmp_path: Path) -> None:
    place, kind = locate(fixtures.write_mlubench(tmp_path)), BENCHMARKS.get("mlubench")
    first, second = (kind(place, kind.Protocol(), name) for name in "AB")
    assert [{(i.split, i.example.subject) for i in each.items()} for each in (first, second)] == [
        {("forget", "Dog"), ("retain", "Fern")},
        {("forget", "Tower"), ("forget_earlier", "Dog"), ("retain", "Film")},
    ]
    found = named(compute_figures(second, answered_by(second, lambda item: "It is a Tower.")))
    assert found["forget", "Things", "rougeL"].value == 1 and found["forget_earlier", "Things", "rougeL"].value == 0.75
    assert second.knowledge(list(found.values())) == 0.875 and second.utility(list(found.values())) == 0.75


def test_mlubench_refuses_other_shapes(tmp_path: Path) -> None:
    benchmark = make("mlubench", tmp_path)
    file = tmp_path / "Tasks" / "TaskA" / "taskA_forget.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([{**rows[0], "conversations": rows[0]["conversations"] * 2}]))
    with pytest.raises(DataError, match=r"the conversation has another form[\s\S]*found: *4 turns"):
        list(benchmark.examples("taskA_forget"))
    file.unlink()
    with pytest.raises(DataError, match=r"the file of taskA_forget is not there once"):
        list(benchmark.examples("taskA_forget"))
