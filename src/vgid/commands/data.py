"""`vgid data`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vgid.commands.options import Bench, Json, Part, Protocol, SkipBadRows
from vgid.commands.root import data_app
from vgid.commands.show import plain, show
from vgid.errors import printable


class TurnsName(StrEnum):
    """Which answers of a conversation become rows."""

    last = "last"
    all = "all"


Turns = Annotated[TurnsName, typer.Option(help="Of a conversation, the last answer, or a row of each answer.")]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Folder that image paths are relative to; by default the data file's.", file_okay=False)
]


def _shown(found: object) -> str:
    return plain(printable(str(found)))


@data_app.command("check")
def data_check(
    data: Annotated[list[str] | None, typer.Argument(help="JSONL, parquet or folders; of a benchmark, its folder or hub id.")] = None,
    benchmark: Bench = None,
    part: Part = None,
    protocol: Protocol = None,
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    problems: Annotated[Path | None, typer.Option(help="A new file for all problems; the screen shows the first 20.")] = None,
    as_json: Json = False,
) -> None:
    """Count rows, images and subjects, list every problem at once, and say what forget and retain have in common."""
    from dataclasses import asdict

    from vgid.benchmarking.splits import check_data, parse_protocol
    from vgid.data.problems import write_problems
    from vgid.data.rows import Reading

    checked = check_data(data or [], benchmark, part, parse_protocol(protocol or []), Reading(turns.value, True, image_root))
    if problems is not None:
        write_problems(problems, [problem for report in checked.splits.values() for problem in report.problems])
    overlap = asdict(checked.overlap) if checked.overlap else None
    splits = {name: asdict(report) for name, report in checked.splits.items()}
    show(
        {"splits": splits, "overlap": overlap},
        as_json,
        map(_shown, filter(None, [*checked.splits.values(), checked.overlap])),
    )
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
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    skip_bad_rows: SkipBadRows = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write own data, or a benchmark's split, as one parquet file that every command reads."""
    from vgid.benchmarking.splits import convert_data, parse_protocol
    from vgid.data.rows import Reading

    chosen = parse_protocol(protocol or [])
    source, reading = None if data == "-" else data, Reading(turns.value, True, image_root)
    rows = convert_data(
        source, out, benchmark, part, split, protocol=chosen, skip_bad_rows=skip_bad_rows, reading=reading, overwrite=overwrite
    )
    print(printable(f"{out}: {rows} rows"))
