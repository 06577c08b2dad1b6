"""Traps: layouts that changed, pictures decoded too early, numbers that look right and are not."""

import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from tests.benchmarks import fixtures
from tests.benchmarks.test_others import WRITERS, answered_by, make, named
from vgid.benchmarking.asking import ask, check_items, compute_figures
from vgid.benchmarking.splits import check_data, convert_data
from vgid.benchmarking.store import AnswerStore
from vgid.benchmarks.base import BENCHMARKS, Answer, Answered
from vgid.benchmarks.common.files import locate
from vgid.data.example import ImageRef
from vgid.errors import ConfigError, DataError
from vgid.evaluation.aggregates import output_robustness
from vgid.evaluation.metrics import probability
from vgid.evaluation.truth import forget_truth, retain_truth
from vgid.models.loading import LoadedModel

NEWER = {
    "mllmu": ("forget_5", "Mask_Task"),
    "clear": ("forget10_perturbed", "perturbed_captions"),
    "umu": ("retain_95", "Cloze"),
    "covubench": ("data", "keywords"),
    "open_mmunlearning": ("forget_5", "metadata"),
}
"""A split, and a column that a newer revision may name otherwise."""


def renamed(root: Path, folder: str, column: str) -> None:
    for file in (root / folder).glob("*.parquet"):
        table = parquet.read_table(file)
        parquet.write_table(table.rename_columns([f"{name}_v2" if name == column else name for name in table.column_names]), file)


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_layout_names_the_column_expected_and_those_found(name: str, tmp_path: Path) -> None:
    benchmark = make(name, tmp_path)
    renamed(tmp_path, *NEWER[name])
    with pytest.raises(
        DataError, match=rf"(?s)another layout.*expected: columns .*{NEWER[name][1]}.*found: columns .*{NEWER[name][1]}_v2.*missing"
    ) as caught:
        check_items(benchmark)
    assert "Oslo" not in str(caught.value) and "Mars" not in str(caught.value)


def test_newer_json_names_the_field_too(tmp_path: Path) -> None:
    benchmark = make("safeeraser", tmp_path)
    rows = json.loads((tmp_path / "all_train.json").read_text())
    (tmp_path / "all_train.json").write_text(
        json.dumps([{("pairs" if k == "unsafe_pairs" else k): v for k, v in row.items()} for row in rows])
    )
    with pytest.raises(
        DataError, match=r"(?s)all_train.json:1.*expected: fields .*unsafe_pairs.*found: fields .*pairs.*missing: unsafe_pairs"
    ):
        check_items(benchmark)


def test_training_splits_cannot_be_evaluated(tmp_path: Path) -> None:
    benchmark = BENCHMARKS.get("mllmu")(locate(fixtures.write_mllmu_training(tmp_path)), BENCHMARKS.get("mllmu").Protocol(few_shot=0))
    with pytest.raises(DataError, match=r"(?s)expected: columns ID, image, Classification_Task.*found: columns image, ID, metadata"):
        check_items(benchmark)


@pytest.mark.parametrize("name", WRITERS)
def test_reading_decodes_no_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, opened = make(name, tmp_path), list[ImageRef]()
    monkeypatch.setattr(ImageRef, "open", opened.append)
    total, _ = check_items(benchmark)
    rows = [row for split in benchmark.training_splits for row in benchmark.examples(split)]
    assert total and any(row.images for row in rows) and opened == []


def test_asking_holds_few_decoded_pictures_at_a_time(tmp_path: Path, long_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    mllmu = BENCHMARKS.get("mllmu")
    benchmark = mllmu(locate(fixtures.write_mllmu(tmp_path, people=12, forget=6)), mllmu.Protocol(max_new_tokens=1, few_shot=1))
    alive, most, opened, original = set[int](), 0, 0, ImageRef.open

    def watched(ref: ImageRef) -> Image.Image:
        nonlocal most, opened
        picture = original(ref)
        opened += 1
        alive.add(opened)
        most = max(most, len(alive))
        weakref.finalize(picture, alive.discard, opened)
        return picture

    monkeypatch.setattr(ImageRef, "open", watched)
    total, _ = check_items(benchmark)
    with AnswerStore(None, "") as store:
        answered = ask(benchmark, long_model, store, total=total, batch_size=2)
    # Two questions at once, each with its picture and one before it.
    assert opened > 20 and most <= 4 and all(not each.item.example.images for each in answered)


def test_a_mean_over_questions_is_not_a_mean_over_people(tmp_path: Path) -> None:
    """Profile 0 has one text option question and profile 1 three: 1 of 4 right is 0.25, the mean over people would be 0.5."""
    root = fixtures.write_mllmu(tmp_path)
    few, many = fixtures.profile(0), fixtures.profile(1)
    few["Classification_Task"]["Pure_Text_Questions"] = [fixtures.choice("Where?")]
    many["Classification_Task"]["Pure_Text_Questions"] = [fixtures.choice(f"Where, {n}?") for n in range(3)]
    fixtures.write_parquet(root / "forget_5", [few, many])
    mllmu = BENCHMARKS.get("mllmu")
    benchmark = mllmu(locate(root), mllmu.Protocol(few_shot=0))
    said = answered_by(benchmark, lambda item: "B" if item.example.subject == "p0" else "A")
    figure = named(compute_figures(benchmark, said))["forget", "classification_text", "accuracy"]
    assert figure.value == 0.25 and figure.n == 4 and (figure.low, figure.high) == (0.0, 1.0)


def test_utility_leaves_the_forget_set_out(tmp_path: Path) -> None:
    """A model that says nothing true about people it must forget must not lose utility by it."""
    benchmark = make("clear", tmp_path)

    def value(forgotten: str) -> float:
        said = answered_by(benchmark, lambda item: forgotten if item.split == "forget" else item.example.answer)
        return named(compute_figures(benchmark, said, said))["retain", "all", "model_utility"].value

    assert value("nothing") == value("Author 0 reads a book.") > 0


def test_truth_ratios_of_forget_and_retain_point_different_ways(tmp_path: Path) -> None:
    """r = e^1.5 everywhere: 1/r to forget (low: it knows), 1 - 1/r to retain; taking one for both would swap them."""
    benchmark = make("fiubench", tmp_path)
    said = answered_by(benchmark, lambda item: item.example.answer)
    found = named(compute_figures(benchmark, said, said))
    assert found["forget", "qa", "truth_ratio"].value == pytest.approx(math.exp(-1.5))
    assert found["retain", "qa", "truth_ratio"].value == pytest.approx(1 - math.exp(-1.5))
    assert benchmark.metrics["truth_ratio"].wanted("forget") == "up" == benchmark.metrics["truth_ratio"].wanted("retain")


@pytest.mark.parametrize("name", ["clear", "fiubench"])
def test_a_reference_that_was_asked_less_is_an_error(name: str, tmp_path: Path) -> None:
    benchmark = make(name, tmp_path)
    said = answered_by(benchmark, lambda item: item.example.answer)
    with pytest.raises(DataError, match="never saw the forget set"):
        compute_figures(benchmark, said, None)
    with pytest.raises(DataError, match="asked different questions"):
        compute_figures(benchmark, said, [each for each in said if each.item.split != "forget"])


@pytest.mark.parametrize("name", ["clear", "fiubench", "open_mmunlearning"])
def test_a_model_with_losses_of_nan_has_no_figures(name: str, tmp_path: Path) -> None:
    benchmark = make(name, tmp_path)
    said = [Answered(item, Answer("", (math.nan,) * len(item.candidates))) for item in benchmark.items()]
    with pytest.raises(DataError, match=r"must be finite|the loss is NaN"):
        compute_figures(benchmark, said, said)


@pytest.mark.parametrize("function", [forget_truth, retain_truth, probability, output_robustness])
def test_nan_is_never_counted_as_zero(function: Any) -> None:
    with pytest.raises(DataError, match=r"finite|no number|NaN"):
        function(math.nan)


def test_robustness_needs_an_area() -> None:
    with pytest.raises(DataError, match=r"numbers in \[0, 1\]"):
        output_robustness(1.2)


def test_people_are_checked_and_converted_without_data(tmp_path: Path) -> None:
    few = {"people": 3, "forget": 1}
    checked = check_data([], "people", None, few)
    assert checked.splits["forget"].subjects == 1 and checked.splits["retain"].subjects == 2
    assert checked.overlap is not None and checked.overlap.ids == ()
    assert convert_data(None, tmp_path / "x.parquet", "people", None, "forget", protocol=few) == checked.splits["forget"].rows
    with pytest.raises(ConfigError, match="nothing to convert"):
        convert_data(None, tmp_path / "y.parquet")
