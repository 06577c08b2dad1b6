"""`vgid compare`: run it, and write results, page and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgid.artifacts import MARK, check_output, prepare_output, write_json_atomic, write_text_atomic
from vgid.comparison.plan import Budget, Plan, plan_of
from vgid.comparison.results import build_comparison
from vgid.comparison.runner import Compared, run_plan
from vgid.errors import OutputError
from vgid.progress import Stages, stages_or_own
from vgid.report.comparison import Shown, markdown, render

OURS = {MARK, "worlds", "runs", "tuning.log", "comparison.json", "comparison.html", "comparison.md"}
"""What a comparison leaves in its folder."""


def compare(
    methods: Sequence[str] = (),
    *,
    target: str = "tiny",
    seeds: int = 1,
    first_seed: int = 0,
    budget: Budget = "equal-steps",
    tune: int = 0,
    settings: Path | None = None,
    steps: int | None = None,
    people: int | None = None,
    forget: int | None = None,
    out: str | Path = "runs/compare",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Run unlearning methods under one protocol on the demo's people, and say with statistics which forgets best at what cost.

    Args:
        methods: names of methods, and of variants such as `vgid:noise-only`; none takes all.
        target: base model: `tiny` (4 M parameters) or `smol` (SmolLM2-135M).
        seeds: number of seeds; each draws its own people and trains its own models.
        first_seed: the first seed; the others follow.
        budget: what is the same for all methods: optimizer steps, or seconds.
        tune: trials in the search for each method's settings; needs the extra `tune`.
        settings: the comparison.json of an earlier comparison with `tune`, whose settings are used.
        steps: optimizer steps; None takes the target's.
        people: people that the model memorises; None takes the target's number.
        forget: how many of them it then forgets; None takes the target's number.
        out: folder for results; a comparison in it goes on.
        overwrite: replace what an earlier comparison left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object, as it is written to `comparison.json`.

    Raises:
        ConfigError: an unknown target, method or setting.
        OutputError: the folder holds something else, or cannot be written.
    """
    sizes = {"people": people, "forget": forget, "steps": steps}
    plan = plan_of(target, methods, seeds=seeds, first_seed=first_seed, budget=budget, trials=tune, settings=settings, **sizes)
    with stages_or_own(stages) as shown_stages:
        return compare_command(plan, Path(out), overwrite=overwrite, stages=shown_stages)


def compare_command(plan: Plan, out: Path, *, overwrite: bool, stages: Stages) -> dict[str, Any]:
    """Run a comparison, or go on with the one in `out`, and write `comparison.json`, `comparison.html` and `comparison.md`.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    _check(out, overwrite)
    plan.target.ready(stages)
    prepare_output(out, keep=not overwrite)
    compared = run_plan(plan, out, stages)
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
