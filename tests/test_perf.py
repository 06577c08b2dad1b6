"""The benchmarks run at the tiny shape: both ways agree, and a default step needs as few passes as it claims. No times are tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(script: str, out: Path, *options: object) -> dict[str, Any]:
    """A benchmark's JSON."""
    command = [sys.executable, str(ROOT / "perf" / script), *map(str, options), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text("utf-8")))


def test_a_step_has_the_loss_of_the_plain_way(tmp_path: Path) -> None:
    found = run("step.py", tmp_path / "step.json", "--shape", "tiny", "--image-tokens", 16, "--images", 1, "--questions", 2, "--epochs", 1)
    assert found["loss_max_diff"] < 1e-4 and found["settings"]["pinned"]["adversary"] is None
    assert {"released", "ours", "default"} <= found.keys() and found["default_over_released"] > 0


def test_a_default_step_takes_as_few_passes_as_there_are_states(tmp_path: Path) -> None:
    found = run("passes.py", tmp_path / "passes.json")
    assert found["student_passes"] == 2 and found["base_passes"] == found["adversary_passes"] == 1  # plain and attacked; teacher; adversary
    assert found["processor_calls"] == 0 and found["padding_share"] <= 0.15
