"""General utility: which answers are right in the built-in suite, what is left after unlearning, and the two harnesses."""

import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.attacks.people import material
from tests.models.test_models import shaken
from vgid.attacks.asking import ask
from vgid.commands import app
from vgid.errors import ConfigError, DataError, OutputError, RunError
from vgid.models.adapters import attach_lora
from vgid.models.export import save_adapter, save_checkpoint
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.report.utility import render_utility, utility_rows, utility_table
from vgid.settings import AdapterConfig
from vgid.synthetic.phrases import PERCEPTION
from vgid.synthetic.tiny import tiny_path
from vgid.utility import harness, perception, suites
from vgid.utility.figures import SuiteFigure, accuracy_figure, relative_figure, relative_figures
from vgid.utility.perception import VALUES, named_value, questions
from vgid.utility.suites import Suite, read_suite, run_utility


@pytest.mark.parametrize(
    ("said", "topic", "value"),
    [
        ("The background is blue.", "background", "blue"),
        ("Blue, or maybe green.", "background", None),
        ("She is wearing no glasses.", "glasses", "no glasses"),
        ("She is wearing glasses.", "glasses", "glasses"),
        ("SUNGLASSES", "glasses", "sunglasses"),
        ("He has a beard.", "beard", "a beard"),
        ("beard", "beard", "a beard"),
        ("He has no beard.", "beard", "no beard"),
        ("She has long hair.", "hair", "long hair"),
        ("I don't know.", "hair", None),
        ("", "expression", None),
    ],
)
def test_an_answer_names_one_value(said: str, topic: str, value: str | None) -> None:
    assert named_value(said, topic) == value


def test_every_true_value_is_named_by_its_own_answer() -> None:
    assert set(VALUES) == {topic.name for topic in PERCEPTION}
    for options in (False, True):
        rows = questions(3, options=options, people=4)
        assert len(rows) == 4 * 2 * len(PERCEPTION) and len({row.id for row in rows}) == len(rows)
        assert [named_value(row.answer, row.tags[0]) for row in rows] == [row.keywords[0] for row in rows]
        assert rows == questions(3, options=options, people=4) != questions(4, options=options, people=4)
        assert all(("Reply with one of" in row.question) == options and row.keywords[0] in VALUES[row.tags[0]] for row in rows)
    # With options the question holds every value, so that no model has to guess the wording.
    assert all(value in row.question for row in rows for value in VALUES[row.tags[0]])


def test_relative_figures_draw_the_same_people_for_both_models() -> None:
    people = ["a", "a", "b", "b", "c", "c"]
    before, half = [1.0] * 6, [1.0, 0.0] * 3
    # Everybody lost one of two answers, so the ratio is 1/2 in every draw, also if each model had draws of its own; see the next case.
    figure = relative_figure("all", half, before, people, 0)
    assert figure is not None and figure[2:] == (0.5, (0.5, 0.5), 6)
    # The same answers are right before and after, so the ratio is 1 in every draw.
    same = relative_figure("all", [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 1, 0], people, 0)
    assert same is not None and same[2:4] == (1.0, (1.0, 1.0))
    assert relative_figure("all", [1.0, 0.0], [0.0, 0.0], ["a", "b"], 0) is None
    with pytest.raises(DataError, match="asked different questions"):
        relative_figure("all", [1.0], [1.0, 0.0], ["a"], 0)
    assert accuracy_figure("x", [1.0, 0.0], ["a", "a"], 0) == ("x", "accuracy", 0.5, (0.5, 0.5), 2)


def test_ratios_of_a_harness_have_no_intervals() -> None:
    base, after = (
        [SuiteFigure("t", "acc", 0.5, None, 9), SuiteFigure("t", "f1", 0.0, None, 9)],
        [SuiteFigure("t", "acc", 0.4, None, 9), SuiteFigure("t", "f1", 0.1, None, 9)],
    )
    assert relative_figures({"base": base, "unlearned": after}) == [SuiteFigure("t/acc", "relative", 0.8, None, 9)]
    assert relative_figures({"unlearned": after}) == []


def test_suites_are_parsed() -> None:
    assert read_suite("perception") == Suite("perception")
    assert read_suite("lm-eval:a, b") == Suite("lm-eval:a, b", "lm-eval", ("a", "b"))
    assert read_suite("lmms-eval:llava_hf:mme") == Suite("lmms-eval:llava_hf:mme", "lmms-eval", ("mme",), "llava_hf")
    for bad in ("perceptions", "lm-eval:", "lm-eval", "lmms-eval:mme", "perception:x", ""):
        with pytest.raises(ConfigError, match=r"(?s)no such utility suite.*perception-options, lm-eval:TASK"):
            read_suite(bad)


def test_figures_of_a_harness_are_read_with_their_errors() -> None:
    found = {
        "results": {
            "a": {
                "alias": "a",
                "acc,none": 0.5,
                "acc_stderr,none": 0.1,
                "acc_stderr_clt,none": 0.2,
                "exact_match,strict": 0.25,
                "exact_match_stderr,strict": "N/A",
            }
        },
        "n-samples": {"a": {"original": 100, "effective": 8}},
    }
    first, second = harness.read_figures(found)
    assert first == ("a", "acc", 0.5, pytest.approx((0.5 - 0.196, 0.5 + 0.196)), 8)
    assert second == ("a", "exact_match (strict)", 0.25, None, 8)
    for empty in (None, {}, {"results": {"a": {"alias": "a"}}}):
        with pytest.raises(RunError, match="returned no figures"):
            harness.read_figures(empty)


def test_a_missing_harness_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    monkeypatch.setitem(__import__("sys").modules, "lmms_eval", None)
    for suite, message in (("lm-eval:piqa", r'pip install "vgid\[utility\]"'), ("lmms-eval:llava_hf:mme", "pip install lmms-eval")):
        with Stages(quiet=True) as stages, pytest.raises(ConfigError, match=message):
            run_utility({"unlearned": ("no/where", None)}, [suite], tmp_path / "out", stages=stages)
    found = CliRunner().invoke(app, ["evaluate", "--model", "x", "--utility", "perception", "--data", "y"]).exception
    assert isinstance(found, ConfigError) and "--utility has its own questions" in str(found)


def test_models_before_and_after_are_compared(random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = questions(0, options=False, people=2)
    monkeypatch.setattr(perception, "questions", lambda seed, options: few)
    said = {"base": 1.0, "unlearned": 0.5}
    answered: list[int] = []

    def answer_accuracy(loaded: LoadedModel, rows: Sequence[Any], batch_size: int, on_progress: Any) -> list[float]:
        assert perception_of(loaded, rows[:2], 2, on_progress) == [0.0, 0.0]  # a random model sees nothing
        answered.append(len(rows))
        share = list(said.values())[len(answered) - 1]
        return [float(number % 2 < 2 * share) for number in range(len(rows))]

    perception_of = perception.answer_accuracy
    monkeypatch.setattr(suites.perception, "answer_accuracy", answer_accuracy)
    models = {"base": (str(random_folder), None), "unlearned": (str(random_folder), None)}
    with Stages(quiet=True) as stages:
        results = run_utility(models, ["perception", "perception"], tmp_path / "out", stages=stages)
        with pytest.raises(OutputError, match="not empty"):
            run_utility(models, ["perception"], tmp_path / "out", stages=stages)
    assert results == json.loads((tmp_path / "out" / "results.json").read_text()) and results["schema"] == "vgid.utility/1"
    first = utility_rows(results)["perception"][0]
    assert (first.name, first.n, [value for value, _ in first.cells], first.left[0]) == ("all accuracy", "24", ["1.000", "0.500"], "0.500")
    assert utility_table(results).row_count == 1 + len(PERCEPTION)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script") == 1 and "expression accuracy" in page and few[0].question not in page
    with pytest.raises(DataError, match="cannot be shown"):
        render_utility({"schema": "x"})


TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra `utility`")
def test_a_task_from_a_folder_runs_in_lm_eval(random_folder: Path, tmp_path: Path) -> None:
    rows = [{"question": f"Is {n} even?", "choices": [" yes", " no"], "label": n % 2} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "even.yaml").write_text(TASK.format(name="even_or_not", file=tmp_path / "rows.jsonl"))
    models = {"base": (str(random_folder), None), "unlearned": (str(random_folder), None)}
    with Stages(quiet=True) as stages:
        with pytest.raises(ConfigError, match=r"(?s)does not know these tasks.*no_such_task"):
            run_utility(models, ["lm-eval:no_such_task"], None, tasks_folder=tmp_path, stages=stages)
        results = run_utility(models, ["lm-eval:even_or_not"], None, tasks_folder=tmp_path, stages=stages, batch_size=3)
    suite = results["suites"]["lm-eval:even_or_not"]
    (figure,) = (each for each in suite["figures"]["base"] if each["metric"] == "acc")
    assert figure["task"] == "even_or_not" and figure["n"] == 6 and figure["value"] in [n / 6 for n in range(7)]
    assert suite["figures"]["base"] == suite["figures"]["unlearned"]
    assert all(each["value"] == 1.0 for each in suite["relative"])


SURPRISE = """\
task: surprise
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: " yes"
metric_list: [{{metric: perplexity, aggregation: perplexity, higher_is_better: false}}]
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra `utility`")
def test_lm_eval_asks_a_model_with_its_adapter(random_folder: Path, tmp_path: Path) -> None:
    adapted = shaken(attach_lora(load_model(random_folder).model, AdapterConfig(rank=4), seed=0))
    save_adapter(adapted, tmp_path / "adapter")
    save_checkpoint(adapted, load_model(random_folder).processor, tmp_path / "merged")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"question": f"Is {n} even?"}) + "\n" for n in range(6)))
    (tmp_path / "surprise.yaml").write_text(SURPRISE.format(file=tmp_path / "rows.jsonl"))
    base, merged = str(random_folder), str(tmp_path / "merged")
    models = {"base": (base, None), "unlearned": (base, tmp_path / "adapter"), "retrained": (merged, None)}
    with Stages(quiet=True) as stages:
        found = run_utility(models, ["lm-eval:surprise"], None, tasks_folder=tmp_path, stages=stages)["suites"]["lm-eval:surprise"]
    perplexity = {
        name: next(each["value"] for each in figures if each["metric"] == "perplexity") for name, figures in found["figures"].items()
    }
    assert perplexity["unlearned"] == pytest.approx(perplexity["retrained"], rel=1e-4)
    assert perplexity["unlearned"] != pytest.approx(perplexity["base"], rel=1e-2)


PICTURES = """\
task: pictures
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function functions.visual
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 16, temperature: 0}}
process_results: !function functions.results
metric_list: [{{metric: right, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """\
import io

from PIL import Image


def visual(doc):
    return [Image.open(io.BytesIO(doc["image"])).convert("RGB")]


def results(doc, said):
    return {"right": float(doc["answer"] in said[0])}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="needs lmms-eval, in an environment of its own")
def test_a_task_from_a_folder_runs_in_lmms_eval(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    asked = [row for row in material(4, 4).everything if row.images]
    encoder = load_model(tiny_path()).encoder
    pictures = [io.BytesIO() for _ in asked]
    for row, file in zip(asked, pictures, strict=True):
        encoder.picture(row.images[0]).save(file, "PNG")
    columns = {
        "question": [row.question for row in asked],
        "answer": [row.keywords[0] for row in asked],
        "image": [file.getvalue() for file in pictures],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "pictures.yaml").write_text(PICTURES.format(file=tmp_path / "rows.parquet"))
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    models = {"base": (str(tiny_path()), None), "unlearned": (str(tiny_path()), None)}
    with Stages(quiet=True) as stages:
        with pytest.raises(ConfigError, match=r"(?s)lmms-eval does not know these tasks.*no_such_task"):
            run_utility(models, ["lmms-eval:llava_hf:no_such_task"], None, tasks_folder=tmp_path, stages=stages)
        found = run_utility(models, ["lmms-eval:llava_hf:pictures"], None, tasks_folder=tmp_path, stages=stages, max_rows=12)
    suite = found["suites"]["lmms-eval:llava_hf:pictures"]
    (figure,) = suite["figures"]["base"]
    right = ask(load_model(tiny_path()), asked[:12], lambda row: [row])
    assert (figure["task"], figure["metric"], figure["n"]) == ("pictures", "right", 12)
    assert figure["value"] == pytest.approx(sum(right.values()) / 12)
    assert suite["relative"][0]["value"] == 1.0
