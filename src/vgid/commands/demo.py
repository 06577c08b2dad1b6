"""`vgid demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import Json, Out, Overwrite, Seed
from vgid.commands.root import app
from vgid.commands.show import show
from vgid.run_folder import check_output, output_folder


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    target: Annotated[str, typer.Option(help="tiny: ships with the package; smol: SmolLM2-135M, an extra.")] = "tiny",
    people: Annotated[int | None, typer.Option(min=2, help="People the model memorises (tiny: 24, smol: 9).")] = None,
    forget: Annotated[int | None, typer.Option(min=1, help="How many of them it then forgets (tiny: 6, smol: 3).")] = None,
    seed: Seed = 0,
    ablation: Annotated[bool, typer.Option("--ablation", help="Also unlearn with noise only, instruction only, both.")] = False,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Keep the generated data and all three models.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """A small model memorises fictional people, forgets some of them, and is compared with one that was never trained on them."""
    from vgid.demo.run import run_demo
    from vgid.demo.targets import TARGETS
    from vgid.progress import Stages
    from vgid.report.table import ablation_table, results_table

    TARGETS.get(target)
    check_output(out, overwrite)
    with Stages(quiet=as_json) as stages, output_folder(out):
        results = run_demo(
            out, target=target, people=people, forget=forget, seed=seed, ablation=ablation, keep_data=keep_data, stages=stages
        )
    ablated = ablation_table(results)
    show(results, as_json, [results_table(results), *([ablated] if ablated else [])], out)
