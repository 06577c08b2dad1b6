"""`vgid data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import Bench, Json, Part, Protocol, SkipBadRows
from vgid.commands.root import data_app
from vgid.commands.show import show


@data_app.command("check")
def data_check(
    data: Annotated[list[str] | None, typer.Argument(help="JSONL, parquet or folders; of a benchmark, its folder or hub id.")] = None,
    benchmark: Bench = None,
    part: Part = None,
    protocol: Protocol = None,
    as_json: Json = False,
) -> None:
    """Count rows, images and subjects, list every problem at once, and say what forget and retain have in common."""
    from dataclasses import asdict

    from vgid.benchmarking.splits import check_data, parse_protocol

    checked = check_data(data or [], benchmark, part, parse_protocol(protocol or []))
    overlap = asdict(checked.overlap) if checked.overlap else None
    splits = {name: asdict(report) for name, report in checked.splits.items()}
    show({"splits": splits, "overlap": overlap}, as_json, map(str, [*checked.splits.values(), *filter(None, [checked.overlap])]))
    if any(report.problems for report in checked.splits.values()):
        raise typer.Exit(2)


@data_app.command("convert")
def data_convert(
    data: Annotated[str, typer.Argument(help="JSONL, parquet or a folder; of a benchmark, its folder or hub id; - where it needs none.")],
    out: Annotated[Path, typer.Argument(help="The parquet file to write, pictures included.", dir_okay=False)],
    benchmark: Bench = None,
    part: Part = None,
    split: Annotated[str | None, typer.Option(help="Which split of the benchmark.")] = None,
    protocol: Protocol = None,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Write own data, or a benchmark's split, as one parquet file that every command reads."""
    from vgid.benchmarking.splits import convert_data, parse_protocol

    chosen = parse_protocol(protocol or [])
    source = None if data == "-" else data
    rows = convert_data(source, out, benchmark, part, split, protocol=chosen, skip_bad_rows=skip_bad_rows)
    print(f"{out}: {rows} rows")
