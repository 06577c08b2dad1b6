"""CLEAR: captions, names, text rows, the real world, and figures worked out by hand."""

import math
from pathlib import Path

import pytest

from tests.benchmarks.fixtures import image, write_clear, write_parquet
from vgid.benchmarking.asking import check_items, compute_figures
from vgid.benchmarks.base import Answer, Answered, by_task
from vgid.benchmarks.clear import CLEAR
from vgid.benchmarks.common.files import locate
from vgid.errors import DataError


def benchmark(root: Path, **settings: object) -> CLEAR:
    return CLEAR(locate(root), CLEAR.Protocol(**settings), forget_set="10")


def test_examples_of_pictures_and_text(tmp_path: Path) -> None:
    bench = benchmark(write_clear(tmp_path))
    rows = list(bench.examples("forget10+tofu"))
    assert bench.training_splits == ("forget10+tofu", "retain90+tofu")
    assert [(len(row.images), row.answer, row.subject) for row in rows] == [
        (1, "Author 0 reads a book.", "Author 0"),
        (1, "Author 1 reads a book.", "Author 1"),
        (0, "Author 0 wrote a book.", None),
        (0, "Author 1 wrote a book.", None),
    ]
    assert len({row.id for row in bench.examples("retain90+tofu")}) == 8
    assert benchmark(tmp_path, text=False).training_splits == ("forget10", "retain90")


def test_the_questions_are_those_of_the_released_configuration(tmp_path: Path) -> None:
    groups = by_task([Answered(item, Answer("")) for item in benchmark(write_clear(tmp_path)).items()])
    assert {key: len(each) for key, each in groups.items()} == {
        ("forget", "caption"): 2,
        ("forget", "name"): 2,
        ("retain", "caption"): 4,
        ("retain", "name"): 4,
        ("real_faces", "options"): 2,
        ("real_world", "options"): 2,
    }
    caption, name = groups["forget", "caption"][0].item, groups["forget", "name"][0].item
    assert caption.candidates == ("Author 0 reads a book.", "A book is read by author 0.", "Author 0 paints.", "Author 0 sleeps on a sofa.")
    assert name.candidates == ("Author 0", "Author 0", "Nobody", "Somebody Else") and name.max_new_tokens == 300


def _answered(bench: CLEAR, shift: float = 0.0) -> list[Answered]:
    """Everybody says the truth; the recorded answer has loss 1, the reworded one 2, wrong ones 3 and 4, and a shift on the forget set."""
    made = []
    for number, item in enumerate(bench.items()):
        extra = shift * (number + 1) if item.split == "forget" else 0.0
        made.append(Answered(item, Answer(item.example.answer, (1.0, 2.0, 3.0 - extra, 4.0 - extra))))
    return made


def test_figures_by_hand(tmp_path: Path) -> None:
    bench = benchmark(write_clear(tmp_path))
    answered = _answered(bench)
    found = {(f.split, f.task, f.metric): f for f in compute_figures(bench, answered, answered)}
    ratio = math.exp(3.5 - 2)
    assert found["forget", "caption", "truth_ratio"].value == pytest.approx(1 / ratio)
    assert found["retain", "caption", "truth_ratio"].value == pytest.approx(1 - 1 / ratio)
    assert found["retain", "caption", "probability"].value == pytest.approx(math.exp(-1))
    among = math.exp(-1) / (math.exp(-1) + math.exp(-3) + math.exp(-4))
    assert found["real_world", "options", "probability"].value == pytest.approx(among)
    # Captions, names, faces and places: ROUGE-L recall 1, a probability, and one truth ratio for all.
    parts = [1.0] * 4 + [math.exp(-1)] + [among] * 3 + [1 - 1 / ratio] * 4
    utility = found["retain", "all", "model_utility"]
    assert utility.value == pytest.approx(12 / sum(1 / part for part in parts)) and utility.low == pytest.approx(utility.value)
    assert found["forget", "caption", "forget_quality"].value == 1.0 and found["forget", "caption", "js_distance"].value == 0.0
    # It says everything (task 0), and yet scores above 0.5, since it does not differ from itself.
    assert found["forget", "caption", "open_fq"].value == pytest.approx((0 + 1 / ratio + 1 - math.exp(-1) + 1 + 1) / 5)
    assert bench.knowledge(list(found.values())) == bench.utility(list(found.values())) == 1.0


def test_forget_quality_needs_a_reference(tmp_path: Path) -> None:
    bench = benchmark(write_clear(tmp_path))
    answered = _answered(bench)
    with pytest.raises(DataError, match=r"(?s)never saw the forget set.*--reference"):
        compute_figures(bench, answered)
    with pytest.raises(DataError, match="the reference was asked different questions"):
        compute_figures(bench, answered, answered[1:])
    without = benchmark(tmp_path, forget_quality=False)
    assert not without.needs_reference and bench.needs_reference
    assert without.protocol.deviations() == {"forget_quality": False}
    assert all(f.metric != "forget_quality" for f in compute_figures(without, answered))


def test_the_released_averaging_is_another_number(tmp_path: Path) -> None:
    write_clear(tmp_path)
    own, released = benchmark(tmp_path), benchmark(tmp_path, truth_ratio="released")
    answered = _answered(own, shift=0.5)
    found = [
        next(
            f.value
            for f in compute_figures(bench, answered, answered)
            if (f.split, f.task, f.metric) == ("forget", "caption", "truth_ratio")
        )
        for bench in (own, released)
    ]
    # Captions of the forget set are the first and third item: log r = 1.5 - 0.5 and 1.5 - 1.5; their mean is 0.5 for both.
    assert found[0] == pytest.approx((math.exp(-1) + 1) / 2) and found[1] == pytest.approx(math.exp(-0.5))


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    write_clear(tmp_path)
    write_parquet(tmp_path / "real_faces", [{"image": image(1), "answer": "Star", "choices": ["a"]}])
    with pytest.raises(
        DataError, match=r"(?s)expected: columns image, answer, options.*found: columns image, answer, choices; missing: options"
    ):
        check_items(benchmark(tmp_path))
