"""`vgid compare`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import MOST_SEEDS, Json, Overwrite
from vgid.commands.root import app
from vgid.commands.show import show


class _Budget(StrEnum):
    steps = "equal-steps"
    time = "equal-time"


@app.command()
def compare(
    methods: Annotated[
        str,
        typer.Option(help="Methods of `vgid methods` and VGID's variants (vgid:noise-only, vgid:paper ...), by commas; all by default."),
    ] = "",
    seeds: Annotated[
        int, typer.Option(min=1, max=MOST_SEEDS, help="Number of seeds; each draws its own people and trains its own models.")
    ] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; the others follow.")] = 0,
    budget: Annotated[_Budget, typer.Option(help="What is the same for all that train; equal time is VGID's.")] = _Budget.steps,
    tune: Annotated[int, typer.Option(min=0, help="Trials in the search for each method's settings; needs the extra `tune`.")] = 0,
    settings: Annotated[
        Path | None, typer.Option(help="Settings found by --tune: the comparison.json of an earlier comparison.", dir_okay=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; by default those of the configuration.")] = None,
    target: Annotated[str, typer.Option(help="tiny: ships with the package; smol: SmolLM2-135M, an extra.")] = "tiny",
    people: Annotated[int | None, typer.Option(min=2, help="People the model memorises (tiny: 24, smol: 9).")] = None,
    forget: Annotated[int | None, typer.Option(min=1, help="How many of them it then forgets (tiny: 6, smol: 3).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results; a comparison in it goes on.", file_okay=False)] = Path("runs/compare"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run unlearning methods under one protocol, and say with statistics which forgets best at what cost."""
    from vgid.comparison.compare import compare as run
    from vgid.progress import Stages
    from vgid.report.comparison import comparison_table

    names = [name.strip() for name in methods.split(",") if name.strip()]
    with Stages(quiet=as_json) as stages:
        results = run(
            names,
            target=target,
            seeds=seeds,
            first_seed=first_seed,
            budget=budget.value,
            tune=tune,
            settings=settings,
            steps=steps,
            people=people,
            forget=forget,
            out=out,
            overwrite=overwrite,
            stages=stages,
        )
    warnings = [f"[yellow]![/] {warning}" for warning in results["warnings"]]
    show(results, as_json, [comparison_table(results), *warnings], out)
