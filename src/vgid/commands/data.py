"""`vgid data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgid.commands.options import (
    Bench,
    ImageRoot,
    Json,
    Out,
    Overwrite,
    Part,
    Protocol,
    Seed,
    SkipBadRows,
    TrustRemoteCode,
    Turns,
    TurnsName,
    Without,
    check_used,
    kinds,
)
from vgid.commands.root import data_app
from vgid.commands.show import plain, show
from vgid.errors import ConfigError, printable

if TYPE_CHECKING:
    from vgid.checks.as_seen import SeenRow


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
    as_seen: Annotated[bool, typer.Option("--as-seen", help="Show the first rows exactly as --model is asked.")] = False,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of that model; its weights are not loaded.")] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of each split that --as-seen shows, at most (3).", show_default=False)
    ] = None,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show the texts of these rows, not only their lengths.")] = False,
    as_json: Json = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Count rows, images and subjects, list every problem at once, and say what forget and retain have in common."""
    from dataclasses import asdict

    from vgid.benchmarking.splits import check_data, first_rows, parse_protocol
    from vgid.data.problems import write_problems
    from vgid.data.rows import Reading

    check_used("--benchmark", benchmark, forget_part=part, protocol=protocol)
    if as_seen != (model is not None):
        raise ConfigError("a row is seen by a model", expected="--as-seen with --model, or neither", got="one of them", fix="give both")
    if not as_seen and (max_rows is not None or show_forgotten):
        raise ConfigError(
            "rows are shown with --as-seen alone", got="--max-rows or --show-forgotten without it", fix="add --as-seen --model"
        )
    source = (benchmark, part, parse_protocol(protocol or []), Reading(turns.value, True, image_root))
    checked = check_data(data or [], *source)
    if problems is not None:
        write_problems(problems, [problem for report in checked.splits.values() for problem in report.problems])
    overlap = asdict(checked.overlap) if checked.overlap else None
    splits = {name: asdict(report) for name, report in checked.splits.items()}
    seen: dict[str, list[SeenRow]] = {}
    if model is not None:
        from vgid.checks.as_seen import as_seen as rows_as_seen
        from vgid.models.loading import load_encoder

        encoder = load_encoder(model)
        first = first_rows(data or [], max_rows or 3, *source)
        seen = {name: rows_as_seen(encoder, rows, show=show_forgotten) for name, rows in first.items()}
    rows = [row for each in seen.values() for row in each]
    show(
        {"splits": splits, "overlap": overlap, "as_seen": {name: [asdict(row) for row in each] for name, each in seen.items()}},
        as_json,
        map(_shown, filter(None, [*checked.splits.values(), checked.overlap, *rows])),
    )
    if any(report.problems for report in checked.splits.values()) or any(row.problem for row in rows):
        raise typer.Exit(2)


@data_app.command("enrich")
def data_enrich(
    forget: Annotated[Path, typer.Argument(help="Rows to forget: JSONL, parquet, a folder, or a request folder with request.yaml.")],
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget; it is asked.")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="The person's name, so that facts are also asked by name.")] = None,
    without: Without = None,
    turns: Turns = TurnsName.last,
    image_root: ImageRoot = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make from rows to forget what they lack: by name, in other words, other views, two at once; and what is seen, to keep.

    Writes forget.jsonl, held_out.jsonl and retain.jsonl for `vgid unlearn`, and enrichment.json.
    """
    from vgid.data.sources import load_examples
    from vgid.enrichment import enrich, write_enriched
    from vgid.models.loading import load_model
    from vgid.requests.request import RequestDetails, parse_request
    from vgid.run_folder import check_output, output_folder
    from vgid.settings import DataConfig

    check_output(out, overwrite, inputs=[model, forget])
    chosen = kinds(without)
    if forget.is_dir():
        reading = DataConfig(turns=turns.value, image_root=None if image_root is None else str(image_root))
        request = parse_request(forget, reading)
        rows, details, whole = [*request.rows, *request.bare], request.details, not request.kept
    else:
        rows, details, whole = load_examples(forget, turns=turns.value, image_root=image_root), RequestDetails(), True
    names = name or details.name
    made = enrich(load_model(model), rows, names=names, without=chosen, person=details.kind == "person", whole=whole, seed=seed)
    with output_folder(out):
        write_enriched(out, rows, made)
    counts = ", ".join(f"{kind} {count}" for kind, count in made.made.items()) or "none"
    text = f"{out}: {len(rows)} rows; made {len(made.facts) + len(made.forget)} to forget, {len(made.held_out)} held out"
    show(
        made.as_json(), as_json, [f"{text}, {len(made.retain)} to keep ({counts})", *(f"left open: {each}" for each in made.left_open)], out
    )


@data_app.command("others")
def data_others(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget somebody else; it is asked.")],
    out: Out,
    pictures: Annotated[Path | None, typer.Option(help="A folder with one picture of each person.", file_okay=False)] = None,
    names: Annotated[Path | None, typer.Option(help="A text file with one name in a line.", dir_okay=False)] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Ask a model about other people, from bare pictures or names: rows to keep, for --retain.

    Writes retain.jsonl with what the model says steadily of each of them, by picture and by name, and what it sees on the pictures.
    """
    from vgid.data.writing import write_examples
    from vgid.enrichment import read_names, read_pictures, rows_about_others
    from vgid.models.loading import load_model
    from vgid.run_folder import check_output, output_folder

    given = [path for path in (pictures, names) if path is not None]
    if not given:
        raise ConfigError("nobody is named", expected="--pictures, --names or both", got="neither", fix="give pictures or names of others")
    check_output(out, overwrite, inputs=[model, *given])
    images, told = read_pictures(pictures) if pictures else [], read_names(names) if names else []
    rows, silent, unknown = rows_about_others(load_model(model), images, told, seed)
    with output_folder(out):
        write_examples(out / "retain.jsonl", rows)
    unknown_pictures = [path.name for place in silent if (path := images[place].path)]
    left = [f"nothing steady is said of {each}" for each in (*unknown_pictures, *unknown)]
    people = len(images) + len(told)
    found = {"rows": len(rows), "people": people, "unknown_pictures": unknown_pictures, "unknown_names": unknown}
    show(found, as_json, [f"{out / 'retain.jsonl'}: {len(rows)} rows about {people - len(left)} of {people} people", *left], out)


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that this command wrote before.")] = False,
) -> None:
    """Write own data, or a benchmark's split, as one parquet file that every command reads."""
    from vgid.benchmarking.splits import convert_data, parse_protocol
    from vgid.data.rows import Reading

    check_used("--benchmark", benchmark, forget_part=part, protocol=protocol, split=split)
    chosen = parse_protocol(protocol or [])
    source, reading = None if data == "-" else data, Reading(turns.value, True, image_root)
    rows = convert_data(
        source, out, benchmark, part, split, protocol=chosen, skip_bad_rows=skip_bad_rows, reading=reading, overwrite=overwrite
    )
    print(printable(f"{out}: {rows} rows"))


@data_app.command("lmms-task")
def data_lmms_task(
    out: Annotated[Path, typer.Argument(help="The folder to make.", file_okay=False)],
    benchmark: Bench = None,
    data: Annotated[str | None, typer.Option(help="The benchmark's folder or hub id.")] = None,
    part: Part = None,
    protocol: Protocol = None,
    forget: Annotated[Path | None, typer.Option(help="Own rows to forget, in place of a benchmark.")] = None,
    retain: Annotated[Path | None, typer.Option(help="Own rows to keep.")] = None,
    task: Annotated[str | None, typer.Option(help="The task's name; by default `vgid_` and the benchmark's.")] = None,
    as_json: Json = False,
) -> None:
    """Write a benchmark, or own rows, as a task of lmms-eval, which measures by vgid's metrics."""
    from vgid.benchmarking.lmms_task import write_task
    from vgid.benchmarking.questions import describe
    from vgid.benchmarking.splits import parse_protocol

    check_used("--benchmark", benchmark, data=data, forget_part=part, protocol=protocol)
    if (benchmark is None) == (forget is None and retain is None):
        raise ConfigError("one thing is asked", expected="--benchmark, or --forget and --retain", got="both or none")
    if benchmark is None:
        described = describe(forget=forget and str(forget), retain=retain and str(retain))
    else:
        described = describe(name=benchmark, data=data, forget_part=part, protocol=parse_protocol(protocol or []) or None)
    made = write_task(described, task or f"vgid_{benchmark or 'rows'}", out)
    lines = [
        f"{made['task']}: {made['questions']} questions",
        f"  python -m lmms_eval --include_path {plain(str(out))} --tasks {made['task']}",
    ]
    show({"out": str(out), **made}, as_json, lines)
