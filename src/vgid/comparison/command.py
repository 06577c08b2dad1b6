"""`vgid compare`: run it, and write results, page and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgid.artifacts import MARK, check_output, prepare_output, write_json_atomic, write_text_atomic
from vgid.comparison.plan import Plan
from vgid.comparison.results import build_comparison
from vgid.comparison.runner import Compared, compare
from vgid.errors import OutputError
from vgid.progress import Stages
from vgid.report.comparison import Shown, markdown, render

OURS = {MARK, "worlds", "runs", "tuning.log", "comparison.json", "comparison.html", "comparison.md"}
"""What a comparison leaves in its folder."""


def compare_command(plan: Plan, out: Path, *, overwrite: bool, stages: Stages) -> dict[str, Any]:
    """Run a comparison, or go on with the one in `out`, and write `comparison.json`, `comparison.html` and `comparison.md`.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    _check(out, overwrite)
    plan.target.ready(stages)
    prepare_output(out, keep=not overwrite)
    compared = compare(plan, out, stages)
    results = build_comparison(compared, stages.seconds)
    write_json_atomic(out / "comparison.json", results)
    write_text_atomic(out / "comparison.md", markdown(results))
    write_text_atomic(out / "comparison.html", render(results, shown(compared, list(results["scores"]))))
    return results


def _check(out: Path, overwrite: bool) -> None:
    check_output(out, overwrite, resume=True)
    other = (
        sorted(child.name for child in out.iterdir() if child.name not in OURS and not child.name.startswith(".")) if out.is_dir() else []
    )
    if other and not overwrite:
        raise OutputError(
            "the folder holds something other than a comparison", where=str(out), got=", ".join(other), fix="choose another --out"
        )


def shown(compared: Compared, order: list[str]) -> list[Shown]:
    """A few questions about people who do not exist, with what each method's model says."""
    said = {run.name: run.said for run in compared.runs if run.said}
    return [
        Shown(
            split=split,
            portrait=example.images[0].read() if example.images else None,
            question=example.question,
            expected=example.answer,
            answers={name: said[name][split][example.id] for name in order if name in said},
        )
        for split, examples in compared.examples.items()
        for example in examples
    ]
