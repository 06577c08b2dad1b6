"""`vgid demo` as a function: memorise, retrain, unlearn and evaluate on generated files, by the functions that the commands call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.config import RunConfig
from vgid.demo.data import DemoData, Splits, read_data, write_data
from vgid.demo.report import EXAMPLES_SHOWN, evenly_spaced, report_example
from vgid.demo.targets import TARGETS, Target
from vgid.demo.teachers import evaluate_teachers
from vgid.demo.training import train_in_parallel, training_jobs
from vgid.demo.workers import Workers, threads
from vgid.evaluation.evaluate import SplitResult, evaluate
from vgid.models.loading import load_model
from vgid.progress import Progress, Stages
from vgid.report.html import ReportData, write_report
from vgid.results import build_results
from vgid.run_folder import discard
from vgid.synthetic.people import World, check_counts
from vgid.training.fit import Fitted, fit
from vgid.unlearning import train_and_export

ABLATIONS: dict[str, tuple[str, ...]] = {
    "noise only": ("method.instruction=null",),
    "instruction only": ("method.noise.kind=none", "method.mask_names=false"),
    "both": (),
}
"""Variants of VGID's teacher, as changes to the settings."""
TEMPORARY = ("data", "base", "retrained")
"""Folders that are removed at the end, unless the caller keeps them."""

SplitResults = dict[str, SplitResult]


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo measured.

    Attributes:
        world: the people.
        splits: questions by split.
        evaluated: results of the models `base`, `unlearned` and `retrained`, by split.
        ablation: results of models unlearned with part of VGID, by variant and split; empty without an ablation.
        teachers: figures in [0, 1] of each variant's teacher before any training; empty without an ablation.
        unlearned: the unlearning run.
        config: its settings.
        seconds: duration of each stage.
    """

    world: World
    splits: Splits
    evaluated: Mapping[str, SplitResults]
    ablation: Mapping[str, SplitResults]
    teachers: Mapping[str, Mapping[str, float]]
    unlearned: Fitted
    config: RunConfig
    seconds: Mapping[str, float]


def run_demo(
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
    """Run the demo, and write its models, `results.json` and `report.html`.

    Args:
        out: folder of the run.
        target: name of the base model; see `vgid.demo.targets`.
        people: number of people that the model memorises; None takes the target's.
        forget: number of those that it forgets; None takes the target's.
        seed: random seed of people, training and evaluation.
        ablation: also unlearn with noise only, with the instruction only, and with both.
        keep_data: keep the generated data, the base and the retrained model.
        stages: shows and times what is done.

    Returns:
        The results object (schema `vgid.results/1`): accuracies and probabilities in [0, 1] by split and model.

    Raises:
        ConfigError: there is no such target, or the numbers of people do not fit.
        RunError: a training run fails.
    """
    try:
        demo = _memorise_and_forget(TARGETS.get(target), out, people, forget, seed, ablation, stages)
        results = build_results(
            model=target,
            evaluated=demo.evaluated,
            config=demo.config,
            seed=seed,
            ablation=demo.ablation,
            seconds=demo.seconds,
            training=demo.unlearned.stopped,
            curves={name: [list(point) for point in curve] for name, curve in demo.unlearned.curves.items()},
            **({"teachers": demo.teachers} if demo.teachers else {}),
        )
        write_json_atomic(out / "results.json", results)
        shown = [(split, example) for split, count in EXAMPLES_SHOWN for example in evenly_spaced(demo.splits[split], count)]
        report = ReportData(
            results=results,
            title="A small model forgets people who do not exist",
            subjects=tuple(person.id for person in demo.world.forget),
            examples=tuple(report_example(split, example, demo.evaluated) for split, example in shown),
        )
        write_report(out / "report.html", report)
    finally:
        if not keep_data:
            for name in TEMPORARY:
                discard(out / name)
    return results


def _memorise_and_forget(
    target: Target, out: Path, people: int | None, forget: int | None, seed: int, ablation: bool, stages: Stages
) -> DemoOutcome:
    """Train and evaluate all models; data and models are written below `out`."""
    counts = (people or target.people[0], forget or target.people[1])
    check_counts(*counts)
    target.make_base(stages)
    world = World(seed, *counts)
    with stages("Drawing people", "data"):
        write_data(world, out / "data", target.questions_per_split)
        data = read_data(out / "data")
    config = target.config([f"seed={seed}"])
    with stages("Memorising everyone", "memorise") as memorised, stages("Retraining without them", "retrain") as retrained:
        train_in_parallel(training_jobs(target, data, out, seed), (memorised, retrained))
    # The base and the retrained model are examined in a second process meanwhile.
    with threads(target.threads), Workers(1, target.threads) as beside:
        beside.start(partial(_evaluate_models, (out / "base", out / "retrained"), data.splits))
        with stages("Unlearning by VGID", "unlearn") as progress:
            unlearned = train_and_export(load_model(out / "base"), data.forget, data.retain, config, out=out, progress=progress)
        with stages("Examining base and retrained model", "evaluate") as progress:
            [(base, retrained)] = beside.finish([progress])
        with stages("Examining the unlearned model", "evaluate") as progress:
            [merged] = _evaluate_models([out / "merged"], data.splits, progress)
        evaluated = {"base": base, "unlearned": merged, "retrained": retrained}
        teachers, ablated = _ablate(target, out, data, seed, stages) if ablation else ({}, {})
    return DemoOutcome(world, data.splits, evaluated, ablated, teachers, unlearned, config, stages.seconds)


def _ablate(
    target: Target, out: Path, data: DemoData, seed: int, stages: Stages
) -> tuple[Mapping[str, Mapping[str, float]], Mapping[str, SplitResults]]:
    """Figures of each variant's teacher before any training, and of the models unlearned with it."""
    variants = {name: target.config([*changes, f"seed={seed}"]) for name, changes in ABLATIONS.items()}
    teachers = evaluate_teachers(load_model(out / "base"), data.splits["forget"], variants)
    ablated = {}
    for name, variant in variants.items():
        with stages(f"Unlearning with {name}", "ablation") as progress:
            fitted = fit(load_model(out / "base"), data.forget, data.retain, variant, progress=progress)
        with stages(f"Examining the {name} model", "evaluate") as progress:
            ablated[name] = evaluate(fitted.loaded, data.splits, on_progress=progress)
    return teachers, ablated


def _evaluate_models(folders: Sequence[Path], splits: Splits, progress: Progress) -> list[SplitResults]:
    """Evaluate checkpoints one after another, as one stage."""
    out = []
    for number, folder in enumerate(folders):
        tick = partial(_tick, progress, number, len(folders))
        out.append(evaluate(load_model(folder), splits, on_progress=tick))
    return out


def _tick(progress: Progress, number: int, of: int, done: int, total: int) -> None:
    progress(number * total + done, of * total)
