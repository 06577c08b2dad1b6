"""`vgid metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import BatchSize, Json, Overwrite, Seed
from vgid.commands.root import app
from vgid.commands.show import show

metrics_app = typer.Typer(help="Measure forgetting by any metric, and test the metrics themselves.", no_args_is_help=True)
app.add_typer(metrics_app, name="metrics")


@metrics_app.callback()
def metrics() -> None:
    """Options before the command."""


@metrics_app.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the metrics: what each measures, reads and needs."""
    from vgid.metrics.measure import list_metrics
    from vgid.report.meta import metrics_table

    rows = list_metrics()
    show(rows, as_json, [metrics_table(rows)])


@metrics_app.command()
def measure(
    model: Annotated[str, typer.Option(help="The model to measure: folder or hub id.")],
    forget: Annotated[Path, typer.Option(help="Rows that were to be forgotten.")],
    retain: Annotated[Path, typer.Option(help="Rows that must still be known.")],
    unseen: Annotated[Path | None, typer.Option(help="Rows about people no model ever met, for PrivLeak and reference MIA.")] = None,
    reference: Annotated[str | None, typer.Option(help="A model that never saw forget and unseen rows, for the same.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A metric of `vgid metrics list`; repeatable. All by default.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Forget rows, and unseen rows, to measure at most.")] = None,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure what a model still knows of the forget rows, by all metrics."""
    from vgid.metrics.measure import measure as run
    from vgid.models.loading import load_model
    from vgid.progress import Stages
    from vgid.report.meta import values_table

    with Stages(quiet=as_json) as stages, stages("Measuring", "measure") as tick:
        results = run(
            load_model(model),
            forget,
            retain,
            unseen=unseen,
            reference=load_model(reference) if reference else None,
            metrics=metric or (),
            max_rows=max_rows,
            batch_size=batch_size,
            seed=seed,
            on_progress=tick,
        )
    left = [f"left out: {name}, which {reason}" for name, reason in results["left_out"].items()]
    show(results, as_json, [values_table(results), *left])


@metrics_app.command()
def meta(
    demo: Annotated[
        list[Path] | None, typer.Option(help="Folder of `vgid demo --keep-data`; repeatable, one for each seed.", file_okay=False)
    ] = None,
    knows: Annotated[list[Path] | None, typer.Option(help="Your own models in place of a demo's: one that knows; repeatable,")] = None,
    never: Annotated[list[Path] | None, typer.Option(help="one that never saw the forget rows; repeatable,")] = None,
    unlearned: Annotated[list[Path] | None, typer.Option(help="one that was unlearned; repeatable,")] = None,
    sham: Annotated[list[Path] | None, typer.Option(help="and one that is known to hide the facts; repeatable.")] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows that were to be forgotten.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows that must still be known.")] = None,
    unseen: Annotated[Path | None, typer.Option(help="Rows about people no model ever met.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Another model that never saw forget and unseen rows, to compare with.")] = None,
    given_only: Annotated[bool, typer.Option("--given-only", help="Make no further models: no variants, and no shams.")] = False,
    attacks: Annotated[str | None, typer.Option(help="Attacks to test beside all metrics, by commas; `none` for none.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Forget rows of each seed to ask at most.")] = 48,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results; a run in it goes on.", file_okay=False)] = Path("runs/metrics"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Say which metrics and attacks to trust, on models of which it is known what they know."""
    from vgid.errors import ConfigError
    from vgid.experiments.meta import DEFAULT_ATTACKS, Pools
    from vgid.experiments.meta import meta as run
    from vgid.progress import Stages
    from vgid.report.meta import meta_table, trusted

    given = (knows, never, forget, retain)
    own = (*given, unlearned, sham, unseen, reference)
    if any(own) and (demo or not all(given)):
        raise ConfigError(
            "own models need four options, and no demo",
            expected="--knows, --never, --forget and --retain",
            got=f"{sum(map(bool, given))} of them{' and --demo' if demo else ''}",
            fix="give all four, or --demo alone",
        )
    runs = [Pools.of_demo(folder) for folder in demo or ()]
    if knows and never and forget and retain:
        runs = [
            Pools(
                knows=tuple(knows),
                never=tuple(never),
                forget=forget,
                retain=retain,
                seed=seed,
                unlearned=tuple(unlearned or ()),
                shams=tuple(sham or ()),
                unseen=unseen,
                reference=reference,
            )
        ]
    names = DEFAULT_ATTACKS if attacks is None else tuple(each.strip() for each in attacks.split(",") if each.strip() not in ("", "none"))
    with Stages(quiet=as_json) as stages:
        results = run(
            runs, attacks=names, make=not given_only, max_rows=max_rows, batch_size=batch_size, out=out, overwrite=overwrite, stages=stages
        )
    show(results, as_json, [meta_table(results), trusted(results)], out)
