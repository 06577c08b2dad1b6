"""`vgid experiment`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import BatchSize, Json, Overwrite, Seed
from vgid.commands.root import app
from vgid.commands.show import show


class _Noise(StrEnum):
    uniform = "uniform"
    gaussian = "gaussian"
    blur = "blur"
    shuffle = "shuffle"
    mean = "mean"
    diffusion = "diffusion"


experiment_app = typer.Typer(help="Run an experiment of a paper.", no_args_is_help=True)
app.add_typer(experiment_app, name="experiment")


@experiment_app.callback()
def experiment() -> None:
    """Options before the command."""


@experiment_app.command()
def reverse(
    demo: Annotated[
        list[Path] | None, typer.Option(help="Folder of `vgid demo --keep-data`; repeatable, one for each seed.", file_okay=False)
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Your own models in place of a demo's: before unlearning,", file_okay=False)] = None,
    model: Annotated[Path | None, typer.Option(help="unlearned by VGID,", file_okay=False)] = None,
    reference: Annotated[Path | None, typer.Option(help="and trained without the forget rows.", file_okay=False)] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows that were forgotten.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows that must still be known.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Demos to run, where neither demos nor models are given.")] = 1,
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
    from vgid.errors import ConfigError
    from vgid.experiments.inputs import SeedModels
    from vgid.experiments.reverse import reverse as run
    from vgid.progress import Stages
    from vgid.report.experiment import claim, experiment_table

    own = (base, model, reference, forget, retain)
    if any(own) and (demo or not all(own)):
        raise ConfigError(
            "own models need all five places, and no demo",
            expected="--base, --model, --reference, --forget and --retain",
            got=f"{sum(map(bool, own))} of them{' and --demo' if demo else ''}",
            fix="give all five, or --demo alone",
        )
    runs = [SeedModels.of_demo(folder) for folder in demo or ()]
    if base and model and reference and forget and retain:
        runs = [SeedModels(base, model, reference, forget, retain, seed)]
    with Stages(quiet=as_json) as stages:
        results = run(
            runs,
            seeds=seeds,
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
