"""`vgid compare` as a whole, on people and models that are small and know little."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vgid.cli import app
from vgid.comparison.command import _check
from vgid.demo.targets import TARGETS, Target
from vgid.errors import OutputError
from vgid.models.tiny import tiny_path

SPECK = Target(
    name="speck",
    base=tiny_path,
    people=(3, 1),
    memorising={"steps": 2, "retain_batch": 8, "learning_rate": 1e-3, "warmup_steps": 1},
)
TARGETS.register("speck")(SPECK)


@pytest.mark.slow
def test_methods_are_compared_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "--target", "speck", "--methods", "vgid,ga,icu", "--steps", "2", "--out", str(out), "--json"]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    results = json.loads(ran.stdout)
    assert results == json.loads((out / "comparison.json").read_text())
    assert set(results["scores"]) == {"vgid", "ga", "icu", "untouched", "retrain"} and not results["failed"]
    assert {results["cost"][name]["steps"] for name in ("vgid", "ga")} == {2} and len(results["pairs"]) == 3
    page, table = (out / "comparison.html").read_text(), (out / "comparison.md").read_text()
    assert page.count("<svg") == 1 and "<script" not in page and "w0-person-001" not in page
    assert all(f"| {name} |" in table for name in results["scores"]) and "`forget_text`" in table
    kept = {path: path.stat().st_mtime_ns for path in [*(out / "runs").rglob("*.json"), *(out / "worlds").rglob("*.safetensors")]}
    again = CliRunner().invoke(app, [*words, "--tune", "1"], catch_exceptions=False)
    tuned = json.loads(again.stdout)
    assert set(tuned["tuned"]) == {"vgid", "ga", "icu"} and {each["trials"] for each in tuned["tuned"].values()} == {1}
    # The only trial takes the settings that come with a method, so nothing but the search had to be done.
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items()) and tuned["scores"] == results["scores"]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="was not made by vgid"):
        _check(tmp_path, overwrite=False)
    (tmp_path / ".vgid-run").touch()
    with pytest.raises(OutputError, match=r"something other than a comparison\n.*found: thesis.txt") as error:
        _check(tmp_path, overwrite=False)
    assert "choose another --out" in str(error.value)
    (tmp_path / "thesis.txt").rename(tmp_path / "comparison.json")
    _check(tmp_path, overwrite=False)
