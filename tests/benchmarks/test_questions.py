"""Benchmarks and own rows as other harnesses ask them: the same metrics as ours, but for likelihoods; both harnesses are run for real."""

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from tests.attacks.people import material
from tests.benchmarks.test_others import WRITERS
from tests.conftest import example
from vgid.benchmarking.asking import compute_figures, mean_figures
from vgid.benchmarking.lmms_task import pictures, values, write_task
from vgid.benchmarking.questions import asked, describe, figures, measured, opened
from vgid.benchmarks.base import Answer, Answered
from vgid.commands import app
from vgid.data.example import Example
from vgid.data.writing import write_examples
from vgid.errors import ConfigError, DataError
from vgid.evaluation.evaluate import evaluate
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.synthetic.tiny import tiny_path
from vgid.utility.suites import run_utility

WITHOUT = {"clear": {"forget_quality": False}, "fiubench": {"forget_quality": False}}
"""Protocols without a comparison with a reference model."""


@pytest.mark.parametrize("name", WRITERS)
def test_no_metric_depends_on_likelihoods_that_a_harness_does_not_give(name: str, tmp_path: Path) -> None:
    """Whatever the losses are, the metrics are those of one answer, and the figures those of all answers, without what needs losses."""
    part, protocol = "10" if name == "clear" else None, WITHOUT.get(name)
    described = describe(name=name, data=str(WRITERS[name](tmp_path)), forget_part=part, protocol=protocol)
    benchmark, items = opened(described)
    assert items and all(not item.example.images for item in items.values())
    draw = random.Random(0)
    answered = [
        Answered(item, Answer(draw.choice((item.example.answer, "A", "I do not know.")), tuple(draw.random() for _ in item.candidates)))
        for item in items.values()
    ]
    for each in answered:
        values = benchmark.measure(*each)
        kept = {metric: value for metric, value in values.items() if not benchmark.metrics[metric].likelihood}
        assert measured(described, each.item.key, each.answer.said) == kept
    said = {each.item.key: each.answer.said for each in answered}
    wanted = [figure for figure in compute_figures(benchmark, answered) if not benchmark.metrics[figure.metric].likelihood]
    assert figures(described, dict(reversed(said.items()))) == wanted
    some = [figure for figure in mean_figures(benchmark, answered[:1], seed=0) if not benchmark.metrics[figure.metric].likelihood]
    assert figures(described, dict([next(iter(said.items()))])) == some


def test_a_reference_or_nothing_to_ask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compares with a reference model"):
        opened(describe(name="fiubench", data=str(WRITERS["fiubench"](tmp_path))))
    with pytest.raises(ConfigError, match="there is nothing to ask"):
        opened(describe(forget=None))


def test_a_task_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    described = json.loads(describe(forget="rows.jsonl", data="owner/name", protocol=None))
    assert described == {"forget": str(tmp_path / "rows.jsonl"), "data": "owner/name"}  # an id of the hub stays one


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Example]]]:
    """Rows about people whom the embedded model knows, and whom it does not know, by split."""
    root, rows = tmp_path_factory.mktemp("rows"), material(2, 2).everything
    found = {}
    for split, part in (("forget", rows[:6]), ("retain", rows[6:12])):
        write_examples(root / f"{split}.jsonl", part)
        found[split] = (root / f"{split}.jsonl", list(part))
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs inspect_ai")
def test_inspect_asks_a_real_model_and_gets_our_figures(own: dict[str, tuple[Path, list[Example]]], tmp_path: Path) -> None:
    import inspect_ai
    from inspect_ai.model import get_model

    from vgid.benchmarking import inspect_extension

    files = {split: str(file) for split, (file, _) in own.items()}
    model = get_model(f"vgid/{tiny_path()}")
    (log,) = inspect_ai.eval(inspect_extension.rows(**files), model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success" and log.results is not None and log.samples is not None
    found = {name: figure.value for score in log.results.scores for name, figure in score.metrics.items()}
    wanted = evaluate(load_model(tiny_path()), {split: rows for split, (_, rows) in own.items()})
    assert wanted["forget"].accuracy > 0.0
    for split, figure in wanted.items():
        assert found[f"{split}/rows/accuracy"] == pytest.approx(figure.accuracy)
        assert found[f"{split}/rows/rouge_l"] == pytest.approx(figure.rouge_l)
        assert found[f"{split}/rows/refused"] == pytest.approx(figure.refusal_rate)
    pictures = sum(part.type == "image" for sample in log.samples for turn in sample.input for part in turn.content)
    assert pictures == sum(len(row.images) for _, rows in own.values() for row in rows) > 0
    assert len(log.samples) == len(list(asked(opened(describe(**files))[0])))


def test_a_task_of_lmms_eval_holds_all_questions_and_measures_as_we_do(
    own: dict[str, tuple[Path, list[Example]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {split: str(file) for split, (file, _) in own.items()}
    done = CliRunner().invoke(
        app, ["data", "lmms-task", str(tmp_path / "task"), "--forget", files["forget"], "--retain", files["retain"], "--json"]
    )
    assert done.exit_code == 0 and json.loads(done.stdout)["questions"] == 12
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == ["functions.py", "rows.parquet", "vgid_rows.yaml"]
    assert "3 of 12 questions have no picture" in caplog.text
    docs = parquet.read_table(tmp_path / "task" / "rows.parquet").to_pylist()
    rows = [row for _, part in own.values() for row in part]
    assert [doc["question"] for doc in docs] == [row.question for row in rows]
    for doc, row in zip(docs, rows, strict=True):
        assert [list(each.get_flattened_data()) for each in pictures(doc)] == [
            list(each.open().get_flattened_data()) for each in row.images
        ]
        split = doc["key"].partition("/")[0]
        assert values(describe(**files), doc["key"], [row.answer])[f"{split}_rows_accuracy"] == 1.0
    assert "metric: retain_rows_refused" in (tmp_path / "task" / "vgid_rows.yaml").read_text()


def test_what_lmms_eval_would_ask_in_another_order_is_refused(tmp_path: Path) -> None:
    """It asks one text after all pictures."""
    row = example(0)
    write_examples(tmp_path / "rows.jsonl", [replace(row, question="Who is <image> here?"), replace(example(1), images=())])
    with pytest.raises(DataError, match="1 of 2 others"):
        write_task(describe(forget=str(tmp_path / "rows.jsonl")), "mine", tmp_path / "task")
    with pytest.raises(ConfigError, match="no such task"):
        write_task(describe(forget=str(tmp_path / "rows.jsonl")), "a b", tmp_path / "task")
    assert not (tmp_path / "task").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="needs lmms-eval, in an environment of its own")
def test_lmms_eval_asks_a_real_model_and_gets_our_figures(own: dict[str, tuple[Path, list[Example]]], tmp_path: Path) -> None:
    """Only rows with pictures: its `llava_hf` answers nothing to others, after an error in its log."""
    files, wanted = {}, {}
    for split, (_, rows) in own.items():
        with_pictures = [row for row in rows if row.images]
        write_examples(tmp_path / f"{split}.jsonl", with_pictures)
        files[split], wanted[split] = str(tmp_path / f"{split}.jsonl"), with_pictures
    write_task(describe(**files), "mine", tmp_path / "task")
    models = {"base": (str(tiny_path()), None), "unlearned": (str(tiny_path()), None)}
    with Stages(quiet=True) as stages:
        found = run_utility(models, ["lmms-eval:llava_hf:mine"], None, tasks_folder=tmp_path / "task", stages=stages)
    figures = {each["metric"]: each["value"] for each in found["suites"]["lmms-eval:llava_hf:mine"]["figures"]["base"]}
    for split, figure in evaluate(load_model(tiny_path()), wanted).items():
        assert figures[f"{split}_rows_accuracy"] == pytest.approx(figure.accuracy)
        assert figures[f"{split}_rows_rouge_l"] == pytest.approx(figure.rouge_l)
