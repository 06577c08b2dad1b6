"""The steps of a run. Each is what an ordinary command does, and leaves files; none does more than call that command's function."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.attacks.base import sample_rows
from vgid.auditing.audit import audit as run_audit
from vgid.auditing.policy import Policy
from vgid.benchmarking.splits import check_data
from vgid.checks.preflight import as_json
from vgid.checks.screen import screen
from vgid.data.example import Example
from vgid.data.sources import Rows, load_examples, write_examples
from vgid.deployment import export_command, verify_command
from vgid.errors import DataError, ModelError, RunError
from vgid.models.loading import load_model
from vgid.progress import Stages
from vgid.report.record import write_record
from vgid.requests.build import build_record
from vgid.requests.card import write_card
from vgid.requests.files import MERGED, PAGE, RECORD, SEAL, digests, files_below
from vgid.requests.keys import Key
from vgid.requests.manifest import write_seal
from vgid.requests.outcomes import CHECKS, read_json
from vgid.requests.resolved import Job
from vgid.requests.state import State
from vgid.results import evaluate_models
from vgid.unlearning import EXAMINED, neutral_retain
from vgid.unlearning import preflight as run_preflight
from vgid.unlearning import unlearn as run_unlearning

Step = Callable[[Job, Key, State, Stages, bool], Sequence[Path]]
"""Does one thing and gives the files it left; the last argument says whether forgotten rows may be shown on the screen."""


def check(job: Job, _: Key, __: State, ___: Stages, ____: bool) -> Sequence[Path]:
    """`vgid data check` of request and retain set: counts alone are kept."""
    sources = {"request": job.demand.folder, **({"retain": job.order.retain} if job.order.retain else {})}
    reports = {name: check_data([str(path)]).splits.values() for name, path in sources.items()}
    problems = [DataError(text) for each in reports.values() for report in each for text in report.problems]
    if problems:
        raise DataError.together(problems)
    counts = {name: [_counts(asdict(report)) for report in each] for name, each in reports.items()}
    return [_written(job.out / CHECKS / "data.json", {"schema": "vgid.data-check/1", "files": counts})]


def _counts(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if isinstance(value, int)}


def preflight(job: Job, _: Key, __: State, stages: Stages, show: bool) -> Sequence[Path]:
    """`vgid preflight`: it stops here where anything is in the way, or where there is nothing to forget."""
    options: dict[str, Any] = {"allow_unknown": job.order.allow_unknown, "max_rows": job.order.max_rows, "show_forgotten": show}
    found = run_preflight(str(job.model), list(job.demand.rows), job.order.retain, job.config, stages=stages, **options)
    stages.show(screen(found))
    found.raise_errors()
    return [_written(job.out / CHECKS / "preflight.json", as_json(found, texts=False))]


def neutral(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """Without a retain set, neutral rows with the model's own answers; with one, nothing."""
    if job.order.retain is not None:
        return []
    shutil.rmtree(job.retain.parent, ignore_errors=True)
    with stages("Answering neutral questions", "neutral"):
        rows = neutral_retain(load_model(job.model), [*job.demand.rows, *job.chain.rows], job.config)
    if not rows:
        raise DataError(
            "every neutral answer holds a fact to forget, or nothing",
            expected="a model that answers general questions",
            fix="give rows that must stay with --retain",
        )
    write_examples(job.retain, rows)
    return list(files_below(job.retain.parent))


def unlearn(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """`vgid unlearn`, with a sample of the rows of earlier requests beside the new ones."""
    folder = job.work / "unlearn"
    checked = read_json(job.out / CHECKS / "preflight.json")
    options: dict[str, Any] = {"max_rows": 0, "resume": True, "checked": checked}
    run_unlearning(str(job.model), [*job.demand.rows, *job.anchors], job.retain, job.config, out=folder, stages=stages, **options)
    return list(files_below(folder))


def evaluate(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """`vgid evaluate`: the model before, the one after, the reference, and the first of a sequence."""
    first = job.chain.deletions[0].knew if job.chain.deletions else None
    models = {
        "original": str(first) if first and first.is_dir() and first.resolve() != job.model.resolve() else None,
        "base": str(job.model),
        "unlearned": str(audited(job)),
        "retrained": str(job.reference) if job.reference else None,
    }
    splits: dict[str, Sequence[Example]] = {"forget": job.demand.rows, "retain": load_examples(job.retain)}
    splits |= {f"forget_{each.request}": each.rows for each in job.chain.deletions if each.rows}
    most, seed = job.order.max_rows or EXAMINED, job.config.seed
    asked: dict[str, Rows] = {name: sample_rows(rows, most, seed) for name, rows in splits.items()}
    folder = job.out / "evaluation"
    given = {name: (path, None) for name, path in models.items()}
    evaluate_models(given, asked, seed=seed, out=folder, overwrite=True, stages=stages)
    return [folder / "results.json"]


def audit(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """`vgid audit` by the policy that was fixed when the run began."""
    return [_audit(job, str(job.model), job.demand.rows, job.policy, job.reference, job.out / "audit", stages)]


def audit_earlier(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """The same for every earlier request, each by its own policy and against the model that knew it; where that can be done."""
    files = []
    for number, deletion in enumerate(job.chain.deletions, 1):
        folder = job.out / f"audit-earlier-{number}"
        if deletion.rows and deletion.knew.is_dir():
            files.append(_audit(job, str(deletion.knew), deletion.rows, Policy(**deletion.policy), None, folder, stages))
    return files


def _audit(job: Job, base: str, rows: Sequence[Example], policy: Policy, reference: Path | None, out: Path, stages: Stages) -> Path:
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted step left
    options: dict[str, Any] = {"profile": job.order.profile, "max_rows": job.order.max_rows, "seed": job.config.seed}
    run_audit(
        audited(job), base=base, forget=rows, retain=job.retain, reference=reference, policy=policy, out=out, stages=stages, **options
    )
    return out / "audit.json"


def export(job: Job, key: Key, state: State, ___: Stages, ____: bool) -> Sequence[Path]:
    """`vgid export`: the very files that were audited, and a model card."""
    for left in (job.out / MERGED, *job.out.glob(f".{MERGED}.*")):
        shutil.rmtree(left, ignore_errors=True)
    export_command(str(audited(job)), None, job.out / MERGED, merge=False)
    if digests(job.out / MERGED, files_below(job.out / MERGED)) != digests(audited(job), files_below(audited(job))):
        raise RunError("the exported model is not the one that was audited", where=job.out / MERGED, fix="run the same command again")
    write_card(job, job.out / MERGED)
    return list(files_below(job.out / MERGED))


def verify_export(job: Job, _: Key, __: State, stages: Stages, ____: bool) -> Sequence[Path]:
    """`vgid verify-export` of what was exported, against the adapter it was merged from."""
    adapter = job.work / "unlearn" / "adapter"
    with stages("Verifying the export", "verify"):
        report = verify_command(job.out, str(job.model), [], adapter=adapter if adapter.is_dir() else None)
    kept = {name: report[name] for name in ("schema", "tensors", "compared_on", "same_answers", "largest_difference")}
    return [_written(job.out / CHECKS / "export.json", kept)]


def record(job: Job, key: Key, state: State, _: Stages, __: bool) -> Sequence[Path]:
    """The record, out of what all steps left."""
    return [_written(job.out / RECORD, build_record(job, key, state).as_json())]


def page(job: Job, key: Key, _: State, __: Stages, ___: bool) -> Sequence[Path]:
    """The record as a page, and the seal over both."""
    write_record(job.out / PAGE, read_json(job.out / RECORD))
    write_seal(job.out, key)
    return [job.out / PAGE, job.out / SEAL]


STEPS: Mapping[str, Step] = {
    "check": check,
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
"""In their order."""


def audited(job: Job) -> Path:
    """The model that is examined and attacked, and then exported as it is."""
    folder = job.work / "unlearn" / MERGED
    if not folder.is_dir():
        raise ModelError("the run has left no merged model", where=folder, fix="choose a method that trains weights; see `vgid methods`")
    return folder


def _written(path: Path, content: Mapping[str, Any]) -> Path:
    write_json_atomic(path, content)
    return path
