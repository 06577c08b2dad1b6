"""`vgid experiment`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgid.commands.options import MOST_SEEDS, BatchSize, Json, Overwrite, Seed, Set
from vgid.commands.root import app
from vgid.commands.show import show

if TYPE_CHECKING:
    from vgid.experiments.inputs import SeedModels


class _Noise(StrEnum):
    uniform = "uniform"
    gaussian = "gaussian"
    blur = "blur"
    shuffle = "shuffle"
    mean = "mean"
    diffusion = "diffusion"


Seeds = Annotated[
    int | None,
    typer.Option(min=0, max=MOST_SEEDS, help="Demos to run, beside those given; 1 where none is given.", show_default=False),
]
Demos = Annotated[
    list[Path] | None, typer.Option(help="Folder of `vgid demo --keep-data`; repeatable, one for each seed.", file_okay=False)
]
experiment_app = typer.Typer(help="Run an experiment of a paper.", no_args_is_help=True)
app.add_typer(experiment_app, name="experiment")


@experiment_app.callback()
def experiment() -> None:
    """Options before the command."""


@experiment_app.command()
def reverse(
    demo: Demos = None,
    base: Annotated[Path | None, typer.Option(help="Your own models in place of a demo's: before unlearning,", file_okay=False)] = None,
    model: Annotated[Path | None, typer.Option(help="unlearned by VGID,", file_okay=False)] = None,
    reference: Annotated[Path | None, typer.Option(help="and trained without the forget rows.", file_okay=False)] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows that were forgotten.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows that must still be known.")] = None,
    seeds: Seeds = None,
    instruction: Annotated[str, typer.Option(help="Instruction of in-context unlearning: a built-in name, or a text.")] = "forget",
    noise: Annotated[_Noise, typer.Option(help="Noise of in-context unlearning.")] = _Noise.uniform,
    max_rows: Annotated[int, typer.Option(min=1, help="Forget rows of each seed to ask at most.")] = 96,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results; must be new or empty.", file_okay=False)] = Path("runs/reverse"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Try to talk models out of forgetting: in-context unlearning, VGID and a retrained model under reverse prompts."""
    from vgid.experiments.reverse import reverse as run
    from vgid.progress import Stages
    from vgid.report.experiment import claim, experiment_table

    runs = _given(demo, (base, model, reference, forget, retain), seeds, seed)
    with Stages(quiet=as_json) as stages:
        results = run(
            runs,
            seeds=int(not runs) if seeds is None else seeds,
            first_seed=seed,
            instruction=instruction,
            noise=noise.value,
            max_rows=max_rows,
            batch_size=batch_size,
            out=out,
            overwrite=overwrite,
            stages=stages,
        )
    show(results, as_json, [experiment_table(results), *claim(results)], out)


@experiment_app.command()
def ablate(
    demo: Demos = None,
    base: Annotated[Path | None, typer.Option(help="Your own models in place of a demo's: before unlearning,", file_okay=False)] = None,
    reference: Annotated[Path | None, typer.Option(help="and trained without the forget rows.", file_okay=False)] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows to forget.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows that must still be known.")] = None,
    seeds: Seeds = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="noise, strength, instruction, alpha, beta, steps, or KEY=VALUE,VALUE; repeatable. All six by default."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the runs.")] = "demo",
    variant: Annotated[str | None, typer.Option(help="Recipe of a variant whose method settings are used, such as paper.")] = None,
    settings: Set = None,
    max_rows: Annotated[int, typer.Option(min=4, help="Questions about forgotten, and about retained people of each seed at most.")] = 192,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results; a run in it goes on.", file_okay=False)] = Path("runs/ablate"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Change one setting of VGID at a time: noise, instruction, weights, steps, or any other."""
    from vgid.experiments.ablate import ablate as run
    from vgid.progress import Stages
    from vgid.report.ablation import ablation_table

    runs = _given(demo, (base, base, reference, forget, retain), seeds, seed)
    with Stages(quiet=as_json) as stages:
        results = run(
            runs,
            sweeps=sweep or (),
            recipe=recipe,
            variant=variant,
            overrides=settings or (),
            seeds=int(not runs) if seeds is None else seeds,
            first_seed=seed,
            max_rows=max_rows,
            batch_size=batch_size,
            out=out,
            overwrite=overwrite,
            stages=stages,
        )
    show(results, as_json, [ablation_table(results)], out)


@experiment_app.command()
def sequence(
    model: Annotated[Path | None, typer.Option(help="Your own model; the embedded base by default.", file_okay=False)] = None,
    forget: Annotated[Path | None, typer.Option(help="Its rows to forget: each subject is a request.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Its rows to keep.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Number of requests; all, or 50 of the embedded base's 64 people.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of every request.")] = "demo",
    settings: Set = None,
    retain_rows: Annotated[int, typer.Option(min=1, help="Rows of others that a request trains on at most.")] = 400,
    max_rows: Annotated[int, typer.Option(min=1, help="Questions about each group of people at most.")] = 96,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results; a run in it goes on.", file_okay=False)] = Path("runs/sequence"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Honour requests in a row, each starting from the one before: do earlier facts come back, and what is lost in all?"""
    from vgid.errors import ConfigError
    from vgid.experiments.sequence import embedded, of_files
    from vgid.experiments.sequence import sequence as run
    from vgid.progress import Stages
    from vgid.report.sequence import sequence_table, summary

    if model is None and forget is None and retain is None:
        given = embedded(50 if requests is None else requests, seed)
    elif model is None or forget is None or retain is None:
        raise ConfigError("an own model needs its rows", expected="--model, --forget and --retain", got="some of them", fix="give all")
    else:
        given = of_files(model, forget, retain, requests)
    with Stages(quiet=as_json) as stages:
        results = run(
            given,
            recipe=recipe,
            overrides=settings or (),
            retain_rows=retain_rows,
            max_rows=max_rows,
            seed=seed,
            out=out,
            overwrite=overwrite,
            stages=stages,
        )
    show(results, as_json, [sequence_table(results), summary(results)], out)


def _given(demo: list[Path] | None, own: tuple[Path | None, ...], seeds: int | None, seed: int) -> list[SeedModels]:
    """The models and rows that options name.

    Raises:
        ConfigError: some places of own models are missing, or demos are given or wanted too.
    """
    from vgid.errors import ConfigError
    from vgid.experiments.inputs import SeedModels

    places = [path for path in own if path is not None]
    if places and (demo or seeds or len(places) < len(own)):
        given = f"{len(set(places))} of them{' and --demo' if demo else ''}{' and --seeds' if seeds else ''}"
        raise ConfigError(
            "own models need all their places, and no demo",
            expected="--base, --model (not for ablate), --reference, --forget and --retain",
            got=given,
            fix="give them all, or --demo and --seeds alone",
        )
    if not places:
        return [SeedModels.of_demo(folder) for folder in demo or ()]
    base, model, reference, forget, retain = places
    return [SeedModels(base, model, reference, forget, retain, seed)]
