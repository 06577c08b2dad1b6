"""MLLMU-Bench: both layouts, the published questions and how answers are read, and errors of wrong files."""

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fixtures import profile, write_mllmu, write_mllmu_training, write_parquet
from tests.conftest import png
from vgid.benchmarking.asking import check_items, compute_figures
from vgid.benchmarks.base import Answer, Answered, Item
from vgid.benchmarks.common.files import locate
from vgid.benchmarks.mllmu import MAIN_METRIC, MLLMU
from vgid.errors import DataError


def benchmark(root: Path, **settings: Any) -> MLLMU:
    return MLLMU(locate(root), MLLMU.Protocol(**settings))


def by_key(root: Path, **settings: Any) -> dict[str, Item]:
    return {item.key: item for item in benchmark(root, **settings).items()}


def test_both_layouts_give_examples(tmp_path: Path) -> None:
    bench, training = benchmark(write_mllmu(tmp_path / "a")), benchmark(write_mllmu_training(tmp_path / "b"))
    assert bench.training_splits == ("forget_5", "retain_95")
    (first, second), rows = bench.examples("forget_5"), list(training.examples("forget_5"))
    assert (first.question, first.answer, first.subject, first.images[0].read()) == ("Who is this?", "Person 0.", "p0", png(0, side=24))
    assert second.subject == "p1" and len(list(bench.examples("retain_95"))) == 4
    assert [(row.id, row.answer) for row in rows[:2]] == [("forget_5/p0/0", "Person 0."), ("forget_5/p0/1", "Oslo.")]
    assert rows[0].images[0] is rows[1].images[0] and len(list(training.examples("retain_95"))) == 8


def test_the_four_splits_ask_what_is_published(tmp_path: Path) -> None:
    items = by_key(write_mllmu(tmp_path), few_shot=0)
    # Two forgotten people, the same two in the test set, four retained, one celebrity: 7 questions each.
    counts = {split: sum(item.split == split for item in items.values()) for split in ("forget", "test", "retain", "celebrity")}
    assert counts == {"forget": 14, "test": 14, "retain": 28, "celebrity": 7}
    choice, blank = items["forget/classification_image/p0/0"], items["celebrity/cloze_text/p50/1"]
    assert choice.example.question.startswith("Where does this person live?\nA: Rome\nB: Oslo\nC: Lima\nD: Cork\n")
    assert choice.example.answer == "B" and len(choice.example.images) == 1 and choice.max_new_tokens == 50
    assert blank.example.question.startswith("Person 50 lives in [Blank].\n") and blank.example.images == ()
    assert "test/generation_image/p1/0" in items and "test/generation_image/p2/0" not in items
    assert items["test/generation_image/p1/0"].example.images[0].read() in (png(101, side=24), png(201, side=24))


def test_shots_come_first_and_their_person_is_not_asked(tmp_path: Path) -> None:
    items = by_key(write_mllmu(tmp_path), few_shot=1)
    asked = {item.example.subject for item in items.values() if item.split == "forget" and item.task == "cloze_image"}
    assert len(asked) == 1
    (person,) = asked
    shown = {"p0": "p1", "p1": "p0"}[str(person)]
    item = items[f"forget/cloze_image/{person}/0"]
    start = "This person lives in [Blank].\nCorrect answer: Oslo\n\nThis person lives in [Blank].\n"
    assert item.example.question.startswith(start)
    assert [ref.read() for ref in item.example.images] == [png(int(shown[1]), side=24), png(int(str(person)[1]), side=24)]
    # No shots before generation, and none for celebrities.
    assert "Correct answer" not in items["forget/generation_text/p0/1"].example.question
    assert "Correct answer" not in items["celebrity/cloze_text/p50/1"].example.question
    assert len(items) == len(by_key(tmp_path, few_shot=1))


def test_answers_are_read_as_published(tmp_path: Path) -> None:
    bench = benchmark(write_mllmu(tmp_path), few_shot=0)
    items = {item.key: item for item in bench.items()}
    choice, blank = items["forget/classification_text/p0/0"], items["forget/cloze_text/p0/1"]
    for said, right in (("B", 1), (" b. Oslo", 1), ("Oslo", 0), ("C", 0), ("", 0), ("The answer is B", 0)):
        assert bench.measure(choice, Answer(said)) == {"accuracy": right}, said
    for said, right in (("She lives in OSLO!", 1), ("Lima", 0), ("", 0)):
        assert bench.measure(blank, Answer(said)) == {"accuracy": right}, said
    worth = bench.measure(items["forget/generation_text/p0/1"], Answer("In Oslo."))
    assert worth["rougeL"] == worth["rouge1"] == worth["rouge2"] == 1.0


def test_figures_and_open_mmunlearnings_parts(tmp_path: Path) -> None:
    bench = benchmark(write_mllmu(tmp_path), max_new_tokens=3)
    # Every third answer is right, every third says half of it, every third nothing.
    said = (lambda truth: truth, lambda truth: truth[: len(truth) // 2], lambda _: "")
    made = compute_figures(bench, [Answered(item, Answer(said[n % 3](item.example.answer))) for n, item in enumerate(bench.items())])
    assert ("celebrity", "generation_text", "bleu") in {f[:3] for f in made}
    assert all(0 <= f.low <= f.value <= f.high <= 1 for f in made if f.low is not None and f.high is not None)
    assert bench.protocol.deviations() == {"max_new_tokens": 3}
    means = {f[:3]: f.value for f in made}
    parts = [means[split, f"{task}_image", metric] for split in ("forget", "test") for task, metric in MAIN_METRIC.items()]
    assert means["forget", "all", "open_task"] == pytest.approx(1 - sum(parts) / 6)
    kept = [
        means[s, f"{task}_{kind}", metric]
        for s in ("retain", "celebrity")
        for kind in ("image", "text")
        for task, metric in MAIN_METRIC.items()
    ]
    assert means["retain", "all", "open_retain"] == pytest.approx(sum(kept) / 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Mask_Task": None}, "missing: Mask_Task"),
        ({"Mask_Task": "nonsense ["}, "Mask_Task cannot be parsed"),
        ({"Mask_Task": [{"Type": "Video", "Question": "q", "Ground_Truth": "a"}]}, "unknown type"),
        ({"Generation_Task": [{"Type": "Pure_Text", "Question": "q", "Truth": "a"}]}, "Ground_Truth is not a text"),
        ({"Classification_Task": {"Questions": []}}, "Classification_Task has no Image_Textual_Questions"),
        ({"image": {"bytes": None, "path": None}}, "image has the wrong type"),
        ({"ID": ""}, "ID is empty"),
    ],
)
def test_another_layout_is_an_error_that_names_columns(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_mllmu(tmp_path)
    row = {key: value for key, value in (profile(0) | change).items() if value is not None}
    write_parquet(tmp_path / "forget_5", [row])
    with pytest.raises(DataError, match=message) as caught:
        check_items(benchmark(tmp_path, few_shot=0))
    assert "Oslo" not in str(caught.value)


def test_ids_may_be_numbers_and_tasks_have_names(tmp_path: Path) -> None:
    named, numbered = by_key(write_mllmu(tmp_path / "a")), by_key(write_mllmu(tmp_path / "b", numbered=True))
    assert len(named) == len(numbered) and {item.example.subject for item in numbered.values()} == {*"012345", "50"}
    with pytest.raises(ValueError, match="clozee"):
        MLLMU.Protocol(tasks=("clozee",))


def test_missing_splits_and_too_few_people(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)split 'forget_5' is not there.*forget_5/\*.parquet"):
        list(benchmark(tmp_path).items())
    write_mllmu(tmp_path, forget=1)
    with pytest.raises(DataError, match=r"(?s)the forget split has nobody to ask about.*few_shot=0"):
        check_items(benchmark(tmp_path, tasks=("cloze",)))
    with pytest.raises(DataError, match=r"(?s)no such forget set.*5, 10, 15"):
        MLLMU(locate(tmp_path), forget_set="20")


def test_questions_stored_as_text_or_literals(tmp_path: Path) -> None:
    write_mllmu(tmp_path)
    row = profile(0)
    row["Mask_Task"], row["Generation_Task"] = str(row["Mask_Task"]), str(row["Generation_Task"]).replace("'", '"')
    row["Classification_Task"] = str(row["Classification_Task"])
    plain = by_key(tmp_path, few_shot=0)
    write_parquet(tmp_path / "forget_5", [row, {**row, "ID": "p1"}])
    again = by_key(tmp_path, few_shot=0)
    assert [item.example.question for item in again.values() if item.example.subject == "p0"] == [
        item.example.question for item in plain.values() if item.example.subject == "p0"
    ]
