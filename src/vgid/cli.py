"""The command line: parse, call one public function, show. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from vgid.artifacts import check_output, prepare_output
from vgid.errors import ConfigError, VgidError
from vgid.progress import launched_as, quieten, tell_on_stderr

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
Recipe = Annotated[str | None, typer.Option(help="Built-in recipe (default, paper, own-data ...) or a YAML file.")]
Method = Annotated[str | None, typer.Option(help="A method of `vgid methods`, with settings that fit it, in place of VGID.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: a.b=c.")]
AllowUnknown = Annotated[bool, typer.Option("--allow-unknown", help="Go on although the model does not know the forget set.")]
Sample = Annotated[int, typer.Option(min=1, help="Forget rows that the preflight asks the model and the teacher.")]
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
    method: Method = None,
    recipe: Recipe = None,
    settings: Settings = None,
    retain_ratio: Annotated[float | None, typer.Option(help="Retain rows per forget row in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    examine: Annotated[int, typer.Option(min=0, help="Rows of each set to examine before and after; 0 for none.")] = 200,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --out, if there is one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Preflight only: check everything, write nothing.")] = False,
    allow_unknown: AllowUnknown = False,
    sample: Sample = 32,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a model forget, after a preflight; writes the adapter, the merged model and results.json."""
    if dry_run:
        preflight(model, forget, retain, method, recipe, settings, retain_ratio, seed, sample, allow_unknown, False, skip_bad_rows, as_json)
        return
    from vgid.progress import Stages
    from vgid.unlearning import unlearn_command

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite contradict each other", fix="give one of them")
    config = _config(method, recipe, settings, retain_ratio, seed)
    first = launched_as() == 0
    if first:
        check_output(out, overwrite, resume)
    options: dict[str, Any] = {"examine": examine, "skip_bad_rows": skip_bad_rows, "allow_unknown": allow_unknown, "sample": sample}
    with Stages(quiet=as_json or not first) as stages:
        results = unlearn_command(model, forget, retain, config, out, resume=resume, stages=stages, **options)
    if first:
        _show(results, as_json, out)


@app.command()
def preflight(
    model: Annotated[str, typer.Option(help="Folder or hub id of the model that must forget.")],
    forget: Annotated[Path, typer.Option(help="What to forget: JSONL, parquet or a folder.")],
    retain: Annotated[Path | None, typer.Option(help="What must stay: JSONL, parquet or a folder.")] = None,
    method: Method = None,
    recipe: Recipe = None,
    settings: Settings = None,
    retain_ratio: Annotated[float | None, typer.Option(help="Retain rows per forget row in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")] = None,
    sample: Sample = 32,
    allow_unknown: AllowUnknown = False,
    show_forgotten: Annotated[bool, typer.Option("--show-forgotten", help="Show a forget row's text in the label sample.")] = False,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and list them.")] = False,
    as_json: Json = False,
) -> None:
    """Look at model, data and settings before a run: what fits, what is trained, and whether there is anything to forget."""
    from vgid.preflight import as_json as to_json
    from vgid.preflight.screen import screen
    from vgid.progress import Stages
    from vgid.unlearning import preflight_command

    config = _config(method, recipe, settings, retain_ratio, seed)
    options: dict[str, Any] = {
        "skip_bad_rows": skip_bad_rows,
        "allow_unknown": allow_unknown,
        "show_forgotten": show_forgotten,
        "sample": sample,
    }
    with Stages(quiet=True) as stages:
        found = preflight_command(model, forget, retain, config, stages=stages, **options)
    if as_json:
        print(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    else:
        _console(110).print(screen(found))
    if found.errors:
        raise typer.Exit(2)


@app.command()
def export(
    model: Annotated[str, typer.Option(help="Folder or hub id of the adapter's base.")],
    adapter: Annotated[Path, typer.Option(help="Folder of the adapter.", file_okay=False)],
    out: Out,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge it into the base: a plain checkpoint. Without, the adapter is copied.")
    ] = False,
) -> None:
    """Write an adapter as a plain checkpoint of its own, or copy it once it has been shown to fit."""
    from vgid.deployment import export_command

    export_command(model, adapter, out, merge=merge)
    _console().print(f"{'merged' if merge else 'adapter':<8} {out}", soft_wrap=True, highlight=False)


@app.command("verify-export")
def verify_export(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a merged model's or an adapter's.", file_okay=False)],
    base: Annotated[str | None, typer.Option(help="The adapter's base; the one the adapter names by default.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Questions to compare on; neutral ones by default. Repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Make sure that stock libraries load what was written and answer the same, and say how to serve it."""
    from vgid.deployment import verify_command

    report = verify_command(folder, base, data or [])
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    console = _console(110)
    for name, path in report["exports"].items():
        tensors = f", all {report['tensors']} tensors in place" if name == "adapter" else ""
        console.print(f"[green]✓[/] {name:<8} loads: {_plain(path)}{tensors}", soft_wrap=True, highlight=False)
    if report["same_answers"] is not None:
        same, worst = report["same_answers"], report["largest_difference"]
        text = f"{same:.0%} of {report['compared_on']} answers the same, logits within {worst:.2g}"
        console.print(f"[green]✓[/] {'compared':<8} {text}", highlight=False)
    for warning in report["warnings"]:
        console.print(f"[yellow]![/] {_plain(warning)}", soft_wrap=True, highlight=False)
    for server in ("vllm", "sglang"):
        if report[server]:
            console.print(f"  {server:<8} {_plain(' '.join(report[server]))}", soft_wrap=True, highlight=False)


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


@app.command()
def methods(as_json: Json = False) -> None:
    """List the unlearning methods: name, kind, paper and what each needs."""
    from vgid.methods.catalogue import catalogue
    from vgid.report.table import methods_table

    rows = catalogue()
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    _console().print(methods_table(rows))


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


def _show_files(console: Console, out: Path | None) -> None:
    for name in ("report.html", "results.json", "answers", "merged"):
        if out is not None and (out / name).exists():
            console.print(f"{name.split('.')[0]:<8} {out / name}", soft_wrap=True, highlight=False)


class _Stopped(SystemExit):
    """A signal that came while nothing had to be finished first."""


def _stop(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise _Stopped(128 + number)


def _config(method: str | None, recipe: str | None, settings: list[str] | None, retain_ratio: float | None, seed: int | None) -> Any:
    from vgid.config import load_config, method_config

    overrides = [*(settings or [])]
    overrides += [f"training.retain_ratio={retain_ratio}"] if retain_ratio is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    if method is None:
        return load_config(recipe, overrides)
    if recipe is not None:
        raise ConfigError("a recipe names its method itself", got=f"--method {method} and --recipe {recipe}", fix="leave one of them out")
    return method_config(method, overrides)


def _console(width: int = 140) -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = width  # a pipe has no width of its own; do not wrap to 80 columns
    return console


def main() -> None:
    """Run the command line; a `VgidError` becomes one clear message and its exit code."""
    quieten()
    tell_on_stderr(errors_only=launched_as() > 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app(standalone_mode=True)
    except VgidError as error:
        if launched_as() == 0 or error.exit_code != VgidError.exit_code:  # all processes find the same fault with their input
            _tell(str(error))
        sys.exit(error.exit_code)
    except _Stopped as stopped:
        _tell(f"stopped by {signal.Signals(int(str(stopped)) - 128).name}; `vgid unlearn` goes on with --resume")
        raise


def _tell(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(text)}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
