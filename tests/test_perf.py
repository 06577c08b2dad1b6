"""The benchmarks run at the tiny shape: both ways agree, and a default step needs as few passes as it claims. No times are tested."""

import ast
import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, out: Path, *options: object) -> dict[str, Any]:
    """A benchmark's JSON."""
    command = [sys.executable, str(ROOT / "perf" / script), *map(str, options), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text("utf-8")))


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "perf").glob("*.py")))
def test_every_name_that_a_benchmark_imports_is_there(script: str) -> None:
    """Many imports are within functions, which only a whole run would meet."""
    nodes = ast.walk(ast.parse((ROOT / "perf" / script).read_text("utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "vgid"]
    for module, names in ((importlib.import_module(str(node.module)), [alias.name for alias in node.names]) for node in imports):
        lost = [name for name in names if not hasattr(module, name)]
        assert [name for name in lost if not hasattr(module, "__path__") or find_spec(f"{module.__name__}.{name}") is None] == []


def test_a_step_has_the_loss_of_the_plain_way(tmp_path: Path) -> None:
    found = run("step.py", tmp_path / "step.json", "--shape", "tiny", "--image-tokens", 16, "--images", 1, "--questions", 2, "--epochs", 1)
    assert found["loss_max_diff"] < 1e-4 and found["settings"]["pinned"]["adversary"] is None
    assert {"released", "ours", "default"} <= found.keys() and found["default_over_released"] > 0


def test_a_default_step_takes_as_few_passes_as_there_are_states(tmp_path: Path) -> None:
    found = run("passes.py", tmp_path / "passes.json")
    assert found["student_passes"] == 2 and found["base_passes"] == found["adversary_passes"] == 1  # plain and attacked; teacher; adversary
    assert found["processor_calls"] == 0 and found["padding_share"] <= 0.15


def test_what_a_request_did_not_reach_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few rows to keep: 95 % of what the base answers about others must stay, here 95.0 of 100 and 94.9."""
    monkeypatch.syspath_prepend(ROOT / "perf")
    module = importlib.import_module("one_person")
    kept = dict.fromkeys(module.KEPT, 1.0)
    base = {"answered": {**dict.fromkeys(module.FORGOTTEN, 1.0), **kept, "her_perception": 0.9}}
    retrained = {"prefix": 0.0, "relearned": {"lora 1e-3, 20 steps": [0, 8]}}
    good = {**dict.fromkeys(module.FORGOTTEN, 0.0), **kept, "retain_views": 0.95, "her_perception": 0.89}
    done = {"answered": good, "exit_code": 0, "prefix": 0.0, "relearned": {"lora 1e-3, 20 steps": [1, 8]}}
    done["guessed"] = {"prefix": 0.125, "relearned": {"lora 1e-3, 20 steps": 0.4}}
    assert module.missed("50 rows", done, base, retrained) == []
    assert module.missed("full", done, base, retrained) == ["retain_views"]
    bad = {**done, "answered": {**good, "forget_text": 0.1, "retain_views": 0.949, "her_perception": 0.87}, "exit_code": 3}
    bad["relearned"] = {"lora 1e-3, 20 steps": [2, 8]}
    missed = ["forget_text", "exit code 0", "retain_views", "what her pictures show", "relearning: lora 1e-3, 20 steps"]
    assert module.missed("50 rows", bad, base, retrained) == missed
    assert module.missed("retrained", {"audit": {"status": "inconclusive"}}, None, None) == ["the audit"]
    assert module.missed("sham: pictures", {"audit": {"status": "pass"}}, None, None) == ["failed in the audit"]
    first = module.Kept(tmp_path / "found.json", {"seed": 0})
    first.put("w0-person-000", "50 rows", done)
    again = module.Kept(tmp_path / "found.json", {"seed": 0})
    again.read()
    assert again.results == first.results == {"w0-person-000": {"50 rows": done}}
    with pytest.raises(SystemExit, match="other settings"):
        module.Kept(tmp_path / "found.json", {"seed": 1}).read()
    *_, row = module.table(again.results)
    assert "| 0.0 (12.5) | 1 of 8 (0.4) |" in row


@pytest.mark.slow
def test_all_that_a_gpu_is_measured_by_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "perf" / "device.py"), "--out", str(tmp_path), "--shape", "tiny", "--device", "cpu"]
    # Nothing is timed here, so a busy machine gets more time than a GPU does.
    done = subprocess.run([*command, "--patience", "5"], capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "device.json").read_text("utf-8"))
    parts = found["parts"]
    assert {name: each["state"] for name, each in parts.items()} == dict.fromkeys(parts, "done")
    assert {"step", "default", "checkpoint", "unlearn-80", "unlearn-40", "unlearn-24-4bit", "audit"} == parts.keys()
    assert parts["unlearn-80"]["killed"] and parts["unlearn-80"]["verified"] and parts["unlearn-40"]["verified"]
    assert parts["unlearn-40"]["end_beyond_writing_s"] >= 0 and parts["default"]["questions"] == 4
    assert len(parts["audit"]["seconds_by_attack"]) > 10 and found["measured"]["sources"]
