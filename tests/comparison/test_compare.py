"""`vgid compare` as a whole, on people and models that are small and know little."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import example
from vgid.commands import app
from vgid.comparison.compare import _check_folder
from vgid.comparison.identity import surroundings
from vgid.data.writing import write_examples
from vgid.demo.targets import METHOD_SETTINGS, TARGETS, Target
from vgid.errors import OutputError
from vgid.run_folder import HEADER, MARK
from vgid.synthetic.splits import SPLITS
from vgid.synthetic.tiny import tiny_path

SPECK = Target(
    name="speck",
    base=tiny_path,
    people=(3, 1),
    methods=METHOD_SETTINGS,
    memorising={"steps": 2, "retain_batch": 8, "learning_rate": 1e-3, "warmup_steps": 1},
)
TARGETS.register("speck")(SPECK)


def drawn(out: Path, few: bool) -> None:
    """Leave the data of a seed as an earlier comparison would, with a few rows that take little time."""
    if not few:
        return
    folder = out / "worlds" / "seed-0"
    forget, retain = [example(n) for n in range(3)], [example(n, answer="I do not know.") for n in range(10, 13)]
    for name, rows in (("forget", forget), ("retain", retain), ("practice", retain[:1])):
        write_examples(folder / "data" / f"{name}.jsonl", rows)
    for name in SPLITS:
        write_examples(folder / "data" / "splits" / f"{name}.jsonl", (forget if name.startswith("forget") else retain)[:2])
    identity = {"seed": 0, "people": 3, "forget": 1, "examined": SPECK.questions_per_split, **surroundings()}
    (folder / "data.json").write_text(json.dumps({"identity": identity}))
    (out / MARK).write_text(f"{HEADER}\n")


@pytest.mark.slow
@pytest.mark.parametrize("few", [True, False])
def test_methods_are_compared_from_the_command_line(tmp_path: Path, few: bool) -> None:
    out = tmp_path / "out"
    drawn(out, few)
    words = ["compare", "--target", "speck", "--methods", "vgid,ga,icu", "--steps", "2", "--out", str(out), "--json"]
    results = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert results == json.loads((out / "comparison.json").read_text())
    assert set(results["scores"]) == {"vgid", "ga", "icu", "untouched", "retrain"} and not results["failed"]
    assert {results["cost"][name]["steps"] for name in ("vgid", "ga")} == {2} and len(results["pairs"]) == 3
    page, table = (out / "comparison.html").read_text(), (out / "comparison.md").read_text()
    # The scores, the best of them enlarged, and what methods recalled during training of the rows that the base knew, if it knew any.
    looks, curves = results["looks"], results["curves"]
    drifted = [name for name, seeds in curves.items() if any("drift retain" in each for each in seeds)]
    plots = 1 + ("corner, enlarged" in page) + len(looks) + len(curves) + len(drifted)
    assert page.count("<svg") == plots and page.count("<script") == 1
    assert set(curves) == {"vgid", "ga"} and all(len(each["forget"]) == 2 for seeds in curves.values() for each in seeds)
    assert set(looks) <= {"vgid", "ga"} and all(each["retain"][-1][0] == 2 for seeds in looks.values() for each in seeds)
    assert all(f"| {name} |" in table for name in results["scores"]) and "`forget_text`" in table
    kept = {path: path.stat().st_mtime_ns for path in [*(out / "runs").rglob("*.json"), *(out / "worlds").rglob("*.safetensors")]}
    again = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items()) and len(kept) == 7
    assert again["scores"] == results["scores"]


@pytest.mark.slow
def test_settings_are_tuned_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    words = ["compare", "--target", "speck", "--methods", "ga", "--steps", "2", "--tune", "1", "--out", str(tmp_path / "out"), "--json"]
    results = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    # The only trial takes the settings that come with the method.
    assert results["tuned"]["ga"]["settings"] == {"training.learning_rate": 1e-4} and results["tuned"]["ga"]["trials"] == 1


def test_folders_with_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="was not made by vgid"):
        _check_folder(tmp_path, overwrite=False)
    (tmp_path / MARK).write_text(f"{HEADER}\n")
    with pytest.raises(OutputError, match=r"something other than a comparison\n.*found: thesis.txt") as error:
        _check_folder(tmp_path, overwrite=False)
    assert "choose another --out" in str(error.value)
    (tmp_path / "thesis.txt").rename(tmp_path / "comparison.json")
    _check_folder(tmp_path, overwrite=False)
