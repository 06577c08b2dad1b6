"""`vgid demo`: run it, write results and report, leave only what was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.data.example import Example
from vgid.demo.run import Demo, run_demo
from vgid.demo.targets import TARGETS
from vgid.progress import Stages
from vgid.report.html import ReportData, ReportExample, write_report
from vgid.results import build_results

SHOWN = (("forget", 4), ("forget_views", 2), ("forget_text", 2), ("retain", 3), ("perception", 2), ("strangers", 2))
"""How many examples of which split the report shows; these people do not exist, so it may."""
NEEDLESS = ("data", "base", "retrained")
"""What is removed at the end, unless asked for."""


def demo_command(
    out: Path,
    *,
    target: str = "tiny",
    people: int | None = None,
    forget: int | None = None,
    seed: int = 0,
    ablation: bool = False,
    keep_data: bool = False,
    stages: Stages,
) -> dict[str, Any]:
    """Run the demo and write `results.json` and `report.html`; gives the results object."""
    try:
        demo = run_demo(out, target=TARGETS.get(target), people=people, forget=forget, seed=seed, ablation=ablation, stages=stages)
        results = build_results(
            model=target,
            evaluated=demo.evaluated,
            config=demo.config,
            seed=seed,
            ablation=demo.ablation,
            seconds=demo.seconds,
            training=demo.unlearned.stopped,
            **({"teachers": demo.teachers} if demo.teachers else {}),
        )
        write_json_atomic(out / "results.json", results)
        write_report(out / "report.html", _report(demo, results))
    finally:
        if not keep_data:
            for name in NEEDLESS:
                shutil.rmtree(out / name, ignore_errors=True)
    return results


def _report(demo: Demo, results: dict[str, Any]) -> ReportData:
    return ReportData(
        results=results,
        title="A small model forgets people who do not exist",
        subjects=tuple(person.id for person in demo.world.forget),
        examples=tuple(_shown(demo, split, example) for split, count in SHOWN for example in spread(demo.splits[split], count)),
        curves=demo.unlearned.curves,
    )


def spread(examples: list[Example], count: int) -> list[Example]:
    """Some examples, of as many people and facts as possible."""
    step = len(examples) / count
    return [examples[int((k + 0.5) * step)] for k in range(count)]


def _shown(demo: Demo, split: str, example: Example) -> ReportExample:
    said = {
        model: next(item.prediction for item in results[split].items if item.example == example.id)
        for model, results in demo.evaluated.items()
    }
    return ReportExample(
        portrait=example.images[0].read() if example.images else None,
        question=example.question,
        expected=example.answer,
        answers=said,
        split=split,
    )
