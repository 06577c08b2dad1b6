"""The command line: parse, call one public function, show. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vgid.artifacts import check_output, prepare_output
from vgid.errors import ConfigError, VgidError
from vgid.progress import quieten, tell_on_stderr

app = typer.Typer(
    name="vgid",
    help="Make vision-language models forget people, and show honestly whether they did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look after data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Out = Annotated[Path, typer.Option("--out", help="Folder for the results; must be new or empty.", file_okay=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left in the folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results object alone on stdout.")]
Bench = Annotated[str | None, typer.Option("--benchmark", help="Read the data as a benchmark, such as mllmu or clear.")]
Part = Annotated[str | None, typer.Option("--forget-part", help="Which forget set of the benchmark, such as 5 or 10.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vgid {version('vgid')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    target: Annotated[str, typer.Option(help="tiny: ships with the package; smol: SmolLM2-135M, an extra.")] = "tiny",
    people: Annotated[int | None, typer.Option(min=2, help="People the model memorises (tiny: 32, smol: 12).")] = None,
    forget: Annotated[int | None, typer.Option(min=1, help="How many of them it then forgets (tiny: 8, smol: 4).")] = None,
    seed: Seed = 0,
    ablation: Annotated[bool, typer.Option("--ablation", help="Also unlearn with noise only, instruction only, both.")] = False,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Keep the generated data and all three models.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """A small model memorises fictional people, forgets some of them, and is compared with one that never met them."""
    from vgid.demo.command import demo_command
    from vgid.demo.targets import TARGETS
    from vgid.progress import Stages

    TARGETS.get(target)
    check_output(out, overwrite)
    prepare_output(out)
    with Stages(quiet=as_json) as stages:
        results = demo_command(
            out, target=target, people=people, forget=forget, seed=seed, ablation=ablation, keep_data=keep_data, stages=stages
        )
    _show(results, as_json, out)


@app.command()
def unlearn(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget.")],
    forget: Annotated[Path, typer.Option(help="What to forget: JSONL, parquet or a folder.")],
    out: Out,
    retain: Annotated[Path | None, typer.Option(help="What must stay: JSONL, parquet or a folder.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Built-in recipe (default, paper, released) or a YAML file.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change one setting: a.b=c.")] = None,
    retain_ratio: Annotated[float | None, typer.Option(help="Retain rows per forget row in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    examine: Annotated[int, typer.Option(min=0, help="Rows of each set to examine before and after; 0 for none.")] = 200,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a model forget; writes the adapter, the merged model and results.json."""
    from vgid.config import load_config
    from vgid.progress import Stages
    from vgid.unlearning import unlearn_command

    overrides = [*(settings or [])]
    overrides += [f"training.retain_ratio={retain_ratio}"] if retain_ratio is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    config = load_config(recipe, overrides)
    check_output(out, overwrite)
    with Stages(quiet=as_json) as stages:
        results = unlearn_command(model, forget, retain, config, out, examine=examine, skip_bad_rows=skip_bad_rows, stages=stages)
    _show(results, as_json, out)


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Folder or hub id of the (unlearned) model.")],
    data: Annotated[list[str] | None, typer.Option(help="A split: JSONL or parquet file, or a folder of such files. Repeatable.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter for the model.")] = None,
    base: Annotated[str | None, typer.Option(help="The model before unlearning, to compare with.")] = None,
    retrained: Annotated[
        str | None, typer.Option("--retrained", "--reference", help="A model that never saw the forget set, to compare with.")
    ] = None,
    benchmark: Bench = None,
    part: Part = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Deviate from a benchmark's published protocol: a=b.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions of a benchmark that are asked at once.")] = 64,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="Keep a benchmark's answers; they hold what is to be forgotten.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write results.json.", file_okay=False)] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Ask models questions and measure the answers: your own data, or a benchmark to its published protocol."""
    from vgid.progress import Stages
    from vgid.unlearning import evaluate_command

    if benchmark is not None:
        models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (retrained, None)}
        _evaluate_benchmark(benchmark, data or [], part, settings or [], models, out, seed, batch_size, overwrite, keep_answers, as_json)
        return
    if not data:
        raise ConfigError("there is nothing to ask", fix="give --data, or --benchmark")
    if out is not None:
        check_output(out, overwrite)
    models = {"base": (base, None), "unlearned": (model, adapter), "retrained": (retrained, None)}
    with Stages(quiet=as_json) as stages:
        paths = [Path(each) for each in data]
        results = evaluate_command({name: pair for name, pair in models.items() if pair[0]}, paths, seed, out, stages)
    _show(results, as_json, out)


def _evaluate_benchmark(
    benchmark: str,
    data: Sequence[str],
    part: str | None,
    settings: Sequence[str],
    models: Mapping[str, tuple[str | None, Path | None]],
    out: Path | None,
    seed: int,
    batch_size: int,
    overwrite: bool,
    keep_answers: bool,
    as_json: bool,
) -> None:
    from vgid.benchmarks.command import benchmark_command
    from vgid.benchmarks.splits import open_benchmark, read_settings
    from vgid.progress import Stages
    from vgid.report.benchmark import benchmark_table

    if len(data) > 1:
        raise ConfigError("a benchmark lies in one place", expected="one --data", got=f"{len(data)}")
    opened = open_benchmark(benchmark, data[0] if data else None, part, read_settings(settings))
    given = {name: (path, adapter) for name, (path, adapter) in models.items() if path}
    with Stages(quiet=as_json) as stages:
        results = benchmark_command(
            opened, given, out, seed=seed, batch_size=batch_size, overwrite=overwrite, keep_answers=keep_answers, stages=stages
        )
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = _console()
    console.print(benchmark_table(results))
    _show_files(console, out)


@data_app.command("check")
def data_check(
    data: Annotated[list[str] | None, typer.Argument(help="JSONL, parquet or folders; of a benchmark, its folder or hub id.")] = None,
    benchmark: Bench = None,
    part: Part = None,
    as_json: Json = False,
) -> None:
    """Count rows, images and subjects, list every problem at once, and say what forget and retain have in common."""
    from dataclasses import asdict

    from vgid.benchmarks.splits import check_data

    checked = check_data(data or [], benchmark, part)
    if as_json:
        overlap = asdict(checked.overlap) if checked.overlap else None
        splits = {name: asdict(report) for name, report in checked.splits.items()}
        print(json.dumps({"splits": splits, "overlap": overlap}, indent=2, default=str))
    else:
        print("\n".join(map(str, [*checked.splits.values(), *filter(None, [checked.overlap])])))
    if any(report.problems for report in checked.splits.values()):
        raise typer.Exit(2)


@data_app.command("convert")
def data_convert(
    data: Annotated[str, typer.Argument(help="JSONL, parquet or a folder; of a benchmark, its folder or hub id.")],
    out: Annotated[Path, typer.Argument(help="The parquet file to write, pictures included.", dir_okay=False)],
    benchmark: Bench = None,
    part: Part = None,
    split: Annotated[str | None, typer.Option(help="Which split of the benchmark.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
) -> None:
    """Write own data, or a benchmark's split, as one parquet file that every command reads."""
    from vgid.benchmarks.splits import convert_data

    print(f"{out}: {convert_data(data, out, benchmark, part, split, skip_bad_rows=skip_bad_rows)} rows")


def _show(results: Mapping[str, Any], as_json: bool, out: Path | None) -> None:
    from vgid.report.table import ablation_table, results_table

    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = _console()
    if results["splits"]:
        console.print(results_table(results))
    if ablated := ablation_table(results):
        console.print(ablated)
    _show_files(console, out)


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a pipe has no width of its own; do not wrap the table to 80 columns
    return console


def _show_files(console: Console, out: Path | None) -> None:
    for name in ("report.html", "results.json", "answers", "merged"):
        if out is not None and (out / name).exists():
            console.print(f"{name.split('.')[0]:<8} {out / name}", soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command line; a `VgidError` becomes one clear message and its exit code."""
    quieten()
    tell_on_stderr()
    try:
        app(standalone_mode=True)
    except VgidError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(str(error))}")
        sys.exit(error.exit_code)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
