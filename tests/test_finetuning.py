"""Stage 1: the model that knows, and the reference that never saw some rows, by one engine."""

import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from tests.conftest import example
from tests.training.test_checkpointing import Stop, final
from vgid.commands import app
from vgid.config import resolve
from vgid.data.example import Example
from vgid.data.sources import leave_out
from vgid.errors import ConfigError, DataError, OutputError, StoppedError
from vgid.finetuning import FineTuned, finetune
from vgid.models.export import merge_adapter
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.run_folder import MARK
from vgid.unlearning import EXPORTS

QUICK = ("training.steps=6", "training.retain_batch=3", "training.learning_rate=1e-2", "validation.every=3", "training.warmup_steps=0")
ROWS = [example(n, answer=f"It is {n}.") for n in range(4)]


def run(model: Path, out: Path, *settings: str, rows: Any = ROWS, **options: Any) -> FineTuned:
    config = resolve(None, [*QUICK, *settings], method="finetune")
    return finetune(load_model(model), rows, config, out=out, stages=Stages(quiet=True), **options)


@pytest.fixture(scope="module")
def reference(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FineTuned:
    """A reference without the last row, LoRA and the whole projector."""
    out = tmp_path_factory.mktemp("reference") / "out"
    return run(random_folder, out, "adapter.whole_projector=true", without=ROWS[3:])


def test_a_reference_never_trains_on_what_is_left_out(reference: FineTuned) -> None:
    assert reference.results["rows_trained"] == {"learned": 3, "left_out": 1}
    assert [step for step, _ in reference.curves["recall learned"]] == [3, 6] == [step for step, _ in reference.curves["recall left out"]]
    losses = [loss for _, loss in reference.curves["retain"]]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.5
    assert {"learned", "left_out"} == set(reference.results["splits"])
    assert {model: result["learned"].n for model, result in reference.scores.items()} == {"base": 3, "finetuned": 3}


def test_the_preflight_is_part_of_the_results(reference: FineTuned) -> None:
    found = reference.results["preflight"]
    assert found["ready"] and found["rows"] == {"learned": {"rows": 3, "looked_at": 3, "longest": found["rows"]["learned"]["longest"]}}
    assert found["knowledge"] is None and found["teacher"] is None and found["labels"] is None
    assert found["memory"]["rows_at_once"] == 3  # `training.retain_batch`: there is nothing to forget


def test_a_dry_run_writes_nothing_and_says_what_texts_cannot_teach(random_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Where does Anna live?", "answer": "In Oslo."}))
    words = [
        "finetune",
        "--model",
        random_folder,
        "--data",
        tmp_path / "rows.jsonl",
        "--out",
        tmp_path / "out",
        "--train",
        "all",
        "--dry-run",
    ]
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert ended.exit_code == 0 and "ready" in ended.output and not (tmp_path / "out").exists()
    assert "no row has a picture, so nothing is learned by projector" in " ".join(ended.output.replace("│", " ").split())
    assert "Oslo" not in ended.output and "knows" not in ended.output


def test_figures_and_curves_are_written_without_texts(reference: FineTuned) -> None:
    assert reference.out is not None
    assert sorted(path.name for path in reference.out.iterdir()) == [".vgid-run", "adapter", "merged", "report.html", "results.json"]
    for name in EXPORTS:
        card = (reference.out / name / "README.md").read_text()
        assert "# A fine-tuned model" in card and f"without {reference.results['rows_trained']['left_out']} others" in card
    written, page = (reference.out / "results.json").read_text("utf-8"), (reference.out / "report.html").read_text("utf-8")
    assert json.loads(written)["curves"]["recall learned"] == [list(point) for point in reference.curves["recall learned"]]
    assert page.count("<svg") == 3 and "Recall over steps" in page and "Drift from the model before" in page
    assert not any(text in each for each in (written, page) for row in ROWS for text in (row.question, row.answer))


def test_the_whole_projector_is_trained_and_exported(reference: FineTuned, random_folder: Path) -> None:
    """The adapter alone, as PEFT loads it, and the merged model hold the same projector, which is not the base's."""
    assert reference.out is not None
    base, merged = load_file(random_folder / "model.safetensors"), final(reference.out)
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    projector = {name for name in base if "multi_modal_projector" in name}
    assert projector <= moved and not any("vision" in name for name in moved)
    plain = AutoModelForImageTextToText.from_pretrained(random_folder)
    adapted = PeftModel.from_pretrained(plain, reference.out / "adapter").merge_and_unload()
    written = AutoModelForImageTextToText.from_pretrained(reference.out / "merged")
    state = adapted.state_dict()
    assert all(torch.allclose(state[name], value, atol=1e-6) for name, value in written.state_dict().items())


def test_an_adapter_with_a_projector_is_merged_again(reference: FineTuned, random_folder: Path, tmp_path: Path) -> None:
    assert reference.out is not None
    merge_adapter(str(random_folder), reference.out / "adapter", tmp_path / "merged")
    one, two = final(tmp_path), final(reference.out)
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


@pytest.mark.parametrize(
    "settings", [["adapter.whole_projector=true", "adapter.dropout=0.3"], pytest.param(["adapter=null"], marks=pytest.mark.slow)]
)
def test_a_stopped_run_ends_as_one_that_never_stopped(
    random_folder: Path, tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(random_folder, tmp_path / "straight", *settings, max_rows=0)
    monkeypatch.setattr(Stages, "__call__", _stopping(Stages.__call__, Stop(4, signal.SIGTERM)))
    with pytest.raises(StoppedError, match="stopped by SIGTERM at step 4 of 6"):
        run(random_folder, tmp_path / "out", *settings, max_rows=0)
    monkeypatch.undo()
    again = run(random_folder, tmp_path / "out", *settings, max_rows=0, resume=True)
    assert again.curves == straight.curves and again.knows is None
    one, two = final(tmp_path / "straight"), final(tmp_path / "out")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    complete = run(random_folder, tmp_path / "out", *settings, max_rows=0, resume=True)
    assert complete.fitted is None and complete.curves == straight.curves


@pytest.mark.parametrize(
    ("change", "problem"), [({"schema": "other/1"}, "not that of a run"), ({"curves": None}, "not that of a fine-tuning")]
)
def test_foreign_results_are_not_taken_for_a_complete_run(
    reference: FineTuned, random_folder: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    assert reference.out is not None
    (tmp_path / "out").mkdir()
    shutil.copy(reference.out / MARK, tmp_path / "out")
    (tmp_path / "out" / "results.json").write_text(json.dumps(reference.results | change))
    with pytest.raises(OutputError, match=problem):
        run(random_folder, tmp_path / "out", "adapter.whole_projector=true", without=ROWS[3:], resume=True)


def _stopping(stage: Any, stop: Stop) -> Any:
    """A stage whose bar sends a signal, while something is fine-tuned."""
    from contextlib import contextmanager

    @contextmanager
    def staged(self: Stages, text: str, key: str) -> Any:
        with stage(self, text, key) as tick:
            yield stop if key == "finetune" else tick

    return staged


def test_all_rows_are_learned_and_nothing_stops_early(random_folder: Path) -> None:
    """20 rows would lose one to a validation part; a base that recalls nothing would stop after three evaluations."""
    rows = [example(n, answer=f"It is {n}.") for n in range(20)]
    fitted = finetune(
        load_model(random_folder),
        rows,
        resolve(None, [*QUICK, "validation.every=1"], method="finetune"),
        max_rows=0,
        stages=Stages(quiet=True),
    )
    assert len(fitted.curves["recall learned"]) == 6 and fitted.results["training"] == "all steps taken"
    assert fitted.results["rows_trained"]["learned"] == 20


def test_rows_are_left_out_by_what_they_ask(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Example(f"a-{n}", f"Who is {n}?", f"{n}") for n in range(3)]
    same = Example("other", "who  is 1?", "Someone else")
    assert leave_out(rows, [same]) == ([rows[0], rows[2]], [rows[1]])
    assert leave_out(rows, []) == (rows, [])
    with caplog.at_level(logging.WARNING, "vgid"):
        leave_out(rows, [same, Example("x", "What?", "x")])
    assert "1 of 2 rows to leave out are not in the data, the first at x" in caplog.text
    with pytest.raises(DataError, match="none of the rows to leave out is in the data"):
        leave_out(rows, [Example("x", "What?", "x")])


def test_what_it_refuses(random_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows are left to learn"):
        run(random_folder, tmp_path / "a", rows=ROWS[:2], without=ROWS[:2])
    with pytest.raises(ConfigError, match="contradict each other"):
        run(random_folder, tmp_path / "a", resume=True, overwrite=True)
    with pytest.raises(ConfigError, match="the projector cannot be trained whole and by an adapter"):
        run(random_folder, tmp_path / "b", "adapter.whole_projector=true", "adapter.scope=[language, projector]", max_rows=0)
    assert not list(tmp_path.iterdir())


def test_the_command_reads_several_files_and_tells_whether_it_knows(random_folder: Path, tmp_path: Path) -> None:
    for name, part in (("one", ROWS[:2]), ("two", ROWS[2:])):
        lines = (json.dumps({"question": f"What is {row.id}?", "answer": row.answer}) for row in part)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    words = ["finetune", "--model", str(random_folder), "--out", str(tmp_path / "out"), "--train", "all", "--json", "--max-rows", "4"]
    words += [word for name in ("one", "two") for word in ("--data", str(tmp_path / f"{name}.jsonl"))]
    words += [word for setting in ("training.steps=1", "training.learning_rate=1e-6") for word in ("--set", setting)]
    ended = CliRunner().invoke(app, [*words, "--without", str(tmp_path / "two.jsonl")])
    assert ended.exit_code == 3, ended.output  # one step teaches nothing
    results = json.loads(ended.stdout)
    assert results["rows_trained"] == {"learned": 2, "left_out": 2} and results["config"]["adapter"] is None
    nothing = CliRunner().invoke(app, ["finetune", "--model", str(random_folder), "--out", str(tmp_path / "x")])
    assert isinstance(nothing.exception, ConfigError) and "there is nothing to learn" in str(nothing.exception)
