"""The steps of a run. Each calls the function of an ordinary command, and returns the files that it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.attacks.base import sample_rows
from vgid.auditing.audit import audit as run_audit
from vgid.auditing.policy import Policy
from vgid.benchmarking.splits import check_data
from vgid.checks.preflight import as_json
from vgid.checks.screen import screen
from vgid.data.example import Example, without_guesses
from vgid.data.rows import Reading
from vgid.data.sources import Rows
from vgid.data.writing import write_examples
from vgid.deployment import export_command, verify_command
from vgid.enrichment import KINDS, Enriched, Kind, known_names, write_enriched
from vgid.enrichment import enrich as enrich_rows
from vgid.errors import ConfigError, DataError, ModelError, RunError
from vgid.models.loading import LoadedModel, load_model
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.report.record import write_record
from vgid.requests.build_record import build_record
from vgid.requests.environment import ENVIRONMENT, bill_of_materials
from vgid.requests.files import CHECKS, MANIFEST, MERGED, PAGE, RECORD, digests, files_below
from vgid.requests.keys import Key
from vgid.requests.manifest import write_manifest
from vgid.requests.model_card import write_model_card
from vgid.requests.resolved import ResolvedRun
from vgid.requests.state import RunState
from vgid.results import evaluate_models
from vgid.run_folder import discard
from vgid.settings import DataConfig
from vgid.unlearning import EXAMINED, neutral_retain, retain_needed
from vgid.unlearning import preflight as run_preflight
from vgid.unlearning import unlearn as run_unlearning


@dataclass(frozen=True)
class StepContext:
    """What a step may use.

    Attributes:
        run: everything that decides the run.
        key: the run's key, for references to people and rows.
        state: start and finished steps of the run.
        stages: shows and times what is done.
    """

    run: ResolvedRun
    key: Key
    state: RunState
    stages: Stages


Step = Callable[[StepContext], Sequence[Path]]
"""Does one thing, and returns the files that it wrote."""


def check(context: StepContext) -> Sequence[Path]:
    """Check request and retain set as `vgid data check` does, and keep the counts alone.

    Raises:
        DataError: rows are bad.
    """
    run = context.run
    sources = {
        **({} if run.request.bare else {"request": (run.request.folder, run.request.reading)}),
        **({"retain": (run.options.retain, run.config.data)} if run.options.retain else {}),
    }
    reports = {
        name: [asdict(each) for each in check_data([str(path)], reading=_as_reading(data)).splits.values()]
        for name, (path, data) in sources.items()
    }
    problems = [DataError(text) for each in reports.values() for report in each for text in report["problems"]]
    if problems:
        raise DataError.together(problems)
    counts = {
        name: [{field: value for field, value in report.items() if isinstance(value, int)} for report in each]
        for name, each in reports.items()
    }
    return [_write(run.out / CHECKS / "data.json", {"schema": "vgid.data-check/1", "files": counts})]


def _as_reading(data: DataConfig) -> Reading:
    return Reading(data.turns, True, Path(data.image_root) if data.image_root else None)


def enrich(context: StepContext) -> Sequence[Path]:
    """Run `vgid data enrich` on the request's rows, and on those outside its scope, which are then kept in every form.

    Raises:
        ModelError: the request states no facts, and the model says none.
    """
    run, given = context.run, context.run.options
    discard(run.enriched)
    if set(given.without) == set(KINDS):
        if run.request.bare:
            raise ConfigError("a request without rows must be enriched", fix="leave --no-enrich out, or add rows")
        return []
    with context.stages("Making rows that the request lacks", "enrich"):
        made, kept = enriched(run, load_model(run.model))
    write_enriched(run.enriched, [*run.request.rows, *run.request.bare], made)
    if kept is not None:
        write_examples(run.enriched / "kept.jsonl", [*run.request.kept, *kept.forget])
        if kept.held_out:
            write_examples(run.enriched / "kept_held_out.jsonl", kept.held_out)
    if not run.rows:
        raise ModelError(
            "the request states no facts, and the model says none steadily",
            where=run.request.folder,
            expected="rows, or a person whom the model knows",
            fix="add rows to the request; see docs/data.md",
        )
    # The rows themselves are not listed: plain digests in `state.json` would show the request's pictures to whoever has them.
    return [_write(run.out / CHECKS / "enrichment.json", made.as_json())]


def enriched(run: ResolvedRun, loaded: LoadedModel) -> tuple[Enriched, Enriched | None]:
    """Make the rows that a request lacks, and those of the facts that are kept.

    Args:
        run: the run; nothing is written.
        loaded: the model that must forget.

    Returns:
        What was made from the rows to forget, and from those outside the scope; None where there are none.
    """
    details, request, without = run.request.details, run.request, run.options.without
    person, seed = details.kind == "person", run.config.seed
    own, names = [*request.rows, *request.bare], details.name
    if person and "names" not in without and not isinstance(names, str):
        names = dict(known_names(loaded, [*own, *request.kept], names, seed))
    made = enrich_rows(loaded, own, names=names, without=without, person=person, whole=not request.kept, seed=seed)
    if not request.kept:
        return made, None
    others: tuple[Kind, ...] = (*without, "seen", "facts", "pairs")
    return made, enrich_rows(loaded, request.kept, names=names, without=others, person=person, whole=False, seed=seed)


def preflight(context: StepContext) -> Sequence[Path]:
    """Run `vgid preflight`, and stop the run where there is an error or nothing to forget.

    Raises:
        ModelError: the model does not know what it is to forget.
        VgidError: another error of the preflight.
    """
    run, given = context.run, context.run.options
    found = run_preflight(
        str(run.model),
        run.rows,
        given.retain,
        run.config,
        max_rows=given.max_rows,
        allow_unknown=given.allow_unknown,
        show_forgotten=given.show_forgotten,
        stages=context.stages,
    )
    made = run.out / CHECKS / "enrichment.json"
    open_ends = read_json(made)["left_open"] if made.is_file() else ["Nothing was made from the rows, as asked: other forms are open."]
    found = replace(found, warnings=(*found.warnings, *open_ends))
    context.stages.show(screen(found))
    found.raise_errors()
    return [_write(run.out / CHECKS / "preflight.json", as_json(found, texts=False))]


def neutral(context: StepContext) -> Sequence[Path]:
    """Without a retain set, write neutral rows with the model's own answers; with one, do nothing.

    Raises:
        DataError: every answer was empty or held a fact to forget.
    """
    run = context.run
    if run.options.retain is not None:
        return []
    discard(run.retain.parent)
    with context.stages("Answering neutral questions", "neutral"):
        rows = neutral_retain(load_model(run.model), [*run.rows, *run.previous.rows], run.config)
    if not rows:
        raise DataError(
            "every neutral answer is empty or holds a fact to forget",
            expected="a model that answers general questions",
            fix="give rows to keep with --retain",
        )
    write_examples(run.retain, rows)
    return list(files_below(run.retain.parent))


def unlearn(context: StepContext) -> Sequence[Path]:
    """Run `vgid unlearn` on the new rows, derived ones, and the anchor rows of previous deletions."""
    run = context.run
    retain = [*run.read_retain(retain_needed(run.config, len(run.training_rows))), *run.derived("retain"), *run.kept]
    folder = run.work / "unlearn"
    run_unlearning(
        str(run.start),
        run.training_rows,
        retain,
        run.config,
        held_out=run.derived("held_out"),
        out=folder,
        max_rows=0,
        resume=True,
        checked=read_json(run.out / CHECKS / "preflight.json"),
        stages=context.stages,
    )
    return list(files_below(folder))


def evaluate(context: StepContext) -> Sequence[Path]:
    """Run `vgid evaluate` on the model before and after, the reference, and the model before the first deletion."""
    run, previous = context.run, context.run.previous.deletions
    first = previous[0].base_folder if previous else None
    models = {
        "original": str(first) if first and first.is_dir() and first.resolve() != run.model.resolve() else None,
        "base": str(run.model),
        "unlearned": str(unlearned_model(run)),
        "retrained": str(run.reference) if run.reference else None,
    }
    splits: dict[str, Sequence[Example]] = {"forget": run.rows, "retain": without_guesses(run.read_retain())}
    splits |= {"held_out": run.derived("held_out"), "kept": [*run.request.kept, *run.derived("kept_held_out")]}
    splits |= {f"forget_{each.request}": each.rows for each in previous if each.rows}
    max_rows, seed = run.options.max_rows or EXAMINED, run.config.seed
    asked: dict[str, Rows] = {name: sample_rows(rows, max_rows, seed) for name, rows in splits.items() if rows}
    folder = run.out / "evaluation"
    without_adapters = {name: (path, None) for name, path in models.items()}
    evaluate_models(without_adapters, asked, seed=seed, out=folder, overwrite=True, stages=context.stages)
    return [folder / "results.json"]


def audit(context: StepContext) -> Sequence[Path]:
    """Run `vgid audit` by the policy that was fixed when the run began."""
    run = context.run
    return [_audit(context, str(run.model), run.rows, run.policy, run.reference, run.out / "audit")]


def audit_earlier(context: StepContext) -> Sequence[Path]:
    """Audit every previous deletion by its own policy and against the model that knew it, where rows and model still exist."""
    files = []
    for number, deletion in enumerate(context.run.previous.deletions, 1):
        folder = context.run.out / f"audit-earlier-{number}"
        if deletion.rows and deletion.base_folder.is_dir():
            files.append(_audit(context, str(deletion.base_folder), deletion.rows, Policy(**deletion.policy), None, folder))
    return files


def _audit(context: StepContext, base: str, rows: Sequence[Example], policy: Policy, reference: Path | None, out: Path) -> Path:
    run = context.run
    discard(out)  # what a step left that was stopped
    run_audit(
        unlearned_model(run),
        base=base,
        forget=rows,
        retain=run.read_retain(),
        reference=reference,
        policy=policy,
        profile=run.options.profile,
        max_rows=run.options.max_rows,
        seed=run.config.seed,
        out=out,
        stages=context.stages,
    )
    return out / "audit.json"


def export(context: StepContext) -> Sequence[Path]:
    """Run `vgid export`: copy the very files that were audited, and add a model card.

    Raises:
        RunError: the copy differs from what was audited.
    """
    run = context.run
    audited, exported = unlearned_model(run), run.out / MERGED
    discard(exported)
    export_command(str(audited), None, exported, merge=False)
    if digests(exported, files_below(exported)) != digests(audited, files_below(audited)):
        raise RunError("the exported model is not the one that was audited", where=exported, fix="run the same command again")
    write_model_card(run, exported)
    return list(files_below(exported))


def verify_export(context: StepContext) -> Sequence[Path]:
    """Run `vgid verify-export` on the exported model, against the adapter that it was merged from."""
    run = context.run
    adapter = run.work / "unlearn" / "adapter"
    with context.stages("Verifying the export", "verify"):
        report = verify_command(run.out, str(run.start), [], adapter=adapter if adapter.is_dir() else None)
    kept = {name: report[name] for name in ("schema", "tensors", "compared_on", "same_answers", "largest_difference")}
    return [_write(run.out / CHECKS / "export.json", kept)]


def record(context: StepContext) -> Sequence[Path]:
    """Write the record from what all steps before left, and list the packages that made it."""
    run = context.run
    _write(run.out / CHECKS / ENVIRONMENT, bill_of_materials())
    return [_write(run.out / RECORD, build_record(run, context.key, context.state).as_json())]


def page(context: StepContext) -> Sequence[Path]:
    """Write the record as a page, and the manifest of both."""
    out = context.run.out
    write_record(out / PAGE, read_json(out / RECORD))
    write_manifest(out, context.key)
    return [out / PAGE, out / MANIFEST]


STEPS: Mapping[str, Step] = {
    "check": check,
    "enrich": enrich,
    "preflight": preflight,
    "neutral rows": neutral,
    "unlearn": unlearn,
    "evaluate": evaluate,
    "audit": audit,
    "audit earlier requests": audit_earlier,
    "export": export,
    "verify export": verify_export,
    "record": record,
    "report": page,
}
"""All steps in their order; the names are keys of `state.json` and of the record's `seconds`."""


def unlearned_model(run: ResolvedRun) -> Path:
    """Return the folder of the merged model, which is evaluated, audited, and then exported as it is.

    Raises:
        ModelError: unlearning left no merged model.
    """
    folder = run.work / "unlearn" / MERGED
    if not folder.is_dir():
        raise ModelError("the run left no merged model", where=folder, fix="choose a method that trains weights; see `vgid methods`")
    return folder


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    write_json_atomic(path, content)
    return path
