"""`vgid compare` as a function: run methods under one protocol, and write results, page and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic, write_text_atomic
from vgid.comparison.datasets import FOLDER
from vgid.comparison.plan import Budget, make_plan
from vgid.comparison.results import build_comparison
from vgid.comparison.runner import FinishedComparison, run_plan
from vgid.errors import OutputError
from vgid.progress import Stages, stages_or_own
from vgid.report.comparison import comparison_markdown, render_comparison
from vgid.report.html import ReportExample
from vgid.run_folder import MARK, check_output, output_folder

OURS = {MARK, FOLDER, "runs", "tuning.log", "tuning.log.lock", "comparison.json", "comparison.html", "comparison.md"}
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
    """Run unlearning methods under one protocol on fictional people, and compare how much they forget at what cost, with statistics.

    Called again with the same arguments after it was stopped, it goes on where it was.

    Args:
        methods: names of methods, and of variants such as `vgid:noise-only`; none takes all.
        target: base model: `tiny` (4 M parameters) or `smol` (SmolLM2-135M).
        seeds: number of seeds; each draws its own people and trains its own models.
        first_seed: the first seed; the others follow.
        budget: what is the same for all methods: optimizer steps, or seconds.
        tune: trials in the search for each method's settings; needs the extra `tune`.
        settings: the comparison.json of an earlier comparison with `tune`, with the settings to use.
        steps: optimizer steps; None takes the target's.
        people: number of people that the model memorises; None takes the target's.
        forget: number of people to forget, among them; None takes the target's.
        out: folder for results; a comparison in it goes on.
        overwrite: replace what an earlier comparison left in `out`.
        stages: shows and times what is done; None shows progress bars.

    Returns:
        The results object as it is written to `comparison.json` (schema `vgid.comparison/1`); the page and the table show it.

    Raises:
        ConfigError: a target, method or setting is unknown, or the extra `tune` is needed and not installed.
        OutputError: the folder holds something else, or cannot be written.
        RunError: the run that sets the time budget failed.
        StoppedError: a signal asked the run to stop.
    """
    sizes = {"people": people, "forget": forget, "steps": steps}
    plan = make_plan(target, methods, seeds=seeds, first_seed=first_seed, budget=budget, trials=tune, settings=settings, **sizes)
    folder = Path(out)
    _check_folder(folder, overwrite, settings)
    with stages_or_own(stages) as shown:
        plan.target.make_base(shown)
        with output_folder(folder, keep=not overwrite, goes_on=lambda: any((folder / name).is_dir() for name in (FOLDER, "runs"))):
            finished = run_plan(plan, folder, shown)
            results = build_comparison(finished, shown.seconds)
            write_json_atomic(folder / "comparison.json", results)
            write_text_atomic(folder / "comparison.md", comparison_markdown(results))
            write_text_atomic(folder / "comparison.html", render_comparison(results, shown_examples(finished, list(results["scores"]))))
    return results


def _check_folder(out: Path, overwrite: bool, settings: Path | None = None) -> None:
    check_output(out, overwrite, resume=True, inputs=[settings])
    inside = out.iterdir() if out.is_dir() else ()
    other = sorted(child.name for child in inside if child.name not in OURS and not child.name.startswith("."))
    if other and not overwrite:
        raise OutputError(
            "the folder holds something other than a comparison", where=str(out), got=", ".join(other), fix="choose another --out"
        )


def shown_examples(finished: FinishedComparison, order: Sequence[str]) -> list[ReportExample]:
    """Return questions about people who do not exist with the answers of each method's model, for the page.

    Args:
        finished: all runs.
        order: names of the entries, in the order of the page.
    """
    said = {run.name: run.said for run in finished.runs if run.said}
    return [
        ReportExample(
            split=split,
            portrait=example.images[0].read() if example.images else None,
            question=example.question,
            expected=example.answer,
            answers={name: said[name][split][example.id] for name in order if name in said},
        )
        for split, examples in finished.examples.items()
        for example in examples
    ]
