"""A record out of what the steps of a run left."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from vgid.data.sources import load_examples
from vgid.requests.earlier import Deletion
from vgid.requests.files import MERGED, digests, files_below
from vgid.requests.keys import Key
from vgid.requests.outcomes import CHECKS, read_json
from vgid.requests.record import (
    SCHEMA,
    AttackResult,
    Conclusion,
    DataPart,
    Drift,
    EarlierDeletion,
    Known,
    Level,
    ModelPart,
    ModelState,
    Procedure,
    Record,
    RequestPart,
    Sequence,
    Utility,
    Verification,
)
from vgid.requests.resolved import Job
from vgid.requests.state import State, now
from vgid.results import versions

COPIES = (
    "The model before still holds what was forgotten. Copies of it, and adapters made from it, have to be retired; this record does not "
    "show that they were."
)
AGAIN = (
    "when the model is trained further, merged with another, or converted to other precision than was tested",
    "when a stronger attack than those named here becomes known",
)


def build_record(job: Job, key: Key, state: State) -> Record:
    """Put the record together; it names files, figures and settings, and people by keyed references."""
    results = read_json(job.out / "evaluation" / "results.json")
    verification = _verification(job, state, results, read_json(job.out / "audit" / "audit.json"))
    sequence = _sequence(job, results) if job.chain.deletions else None
    after = ModelState(name=MERGED, revision=None, files=_files(job.out / MERGED, files_below(job.out / MERGED)))
    return Record(
        schema=SCHEMA,
        request=_request(job, key, state),
        model=ModelPart(before=_model(job.model, job.name, job.revision), after=after, form="merged", copies=COPIES),
        data=_data(job, key),
        procedure=_procedure(job, state),
        verification=verification,
        sequence=sequence,
        conclusion=conclude(verification, sequence, job.order.retain is None),
        artefacts=_files(job.out, _artefacts(job)),
    )


def _files(root: Path, paths: Iterable[Path]) -> Any:
    return digests(root, paths)


def _artefacts(job: Job) -> list[Path]:
    folders = [job.out / name for name in (CHECKS, "evaluation", "audit")]
    folders += [job.out / f"audit-earlier-{number}" for number, _ in enumerate(job.chain.deletions, 1)]
    return [path for folder in folders if folder.is_dir() for path in files_below(folder)]


def _model(folder: Path, name: str, revision: str | None) -> ModelState:
    return ModelState(name=name, revision=revision, files=_files(folder, files_below(folder)))


def _request(job: Job, key: Key, state: State) -> RequestPart:
    said = job.demand.request.model_dump(mode="json") | {"id": job.request_id(key)}
    rows = job.demand.rows
    return RequestPart(
        **said,
        subjects=sorted({key.subject(row.subject) for row in rows if row.subject}),
        rows_without_subject=sum(row.subject is None for row in rows),
        started=state.content["started"],
        completed=now(),
    )


def _data(job: Job, key: Key) -> DataPart:
    rows, retain = job.demand.rows, load_examples(job.retain)
    return DataPart(
        rows=len(rows),
        with_image=sum(bool(row.images) for row in rows),
        text_only=sum(not row.images for row in rows),
        images=len({ref.fingerprint for row in rows for ref in row.images}),
        commitment=key.rows(rows),
        anchors=len(job.anchors),
        retain="given" if job.order.retain else "neutral",
        retain_rows=len(retain),
        retain_commitment=key.rows(retain),
    )


def _procedure(job: Job, state: State) -> Procedure:
    results = read_json(job.work / "unlearn" / "results.json")
    return Procedure(
        method=results["method"],
        config=job.config.model_dump(mode="json"),
        seed=job.config.seed,
        versions=versions(),
        hardware=hardware(),
        training=results["training"],
        seconds={name: step["seconds"] for name, step in state.content["steps"].items()},
    )


def hardware() -> dict[str, str]:
    """What it ran on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"machine": platform.machine(), "system": platform.system(), "processors": str(os.cpu_count()), "device": device}


def _verification(job: Job, state: State, results: Mapping[str, Any], audit: Mapping[str, Any]) -> Verification:
    attacks = {name: _attack(each) for name, each in audit["attacks"].items()}
    verdict = audit["verdict"]
    return Verification(
        threat_model=_threat_model(attacks),
        profile=audit["profile"],
        policy=audit["policy"],
        policy_source=job.order.policy.name
        if job.order.policy
        else "the package's own, asking for no more people than the request has to score",
        policy_fixed=state.content["started"],
        reference=_model(job.reference, str(job.order.reference), None) if job.reference else None,
        knowledge=Known(**audit["knowledge"]),
        utility=Utility(**audit["utility"]),
        attacks=attacks,
        evaluation=results["splits"],
        export=read_json(job.out / CHECKS / "export.json"),
        status=verdict["status"],
        reasons=verdict["reasons"],
        untested=verdict["untested"],
    )


def _attack(found: Mapping[str, Any]) -> AttackResult:
    levels = {name: _level(each) for name, each in found["levels"].items()}
    same = {name: found[name] for name in ("access", "budget", "required", "status", "reason")}
    return AttackResult(**same, allowed=found["most"], levels=levels)


def _level(found: Mapping[str, Any]) -> Level:
    same = {name: found[name] for name in ("facts", "people", "share", "interval", "clean", "status", "reason")}
    return Level(**same, rates=found.get("recovered") or found.get("auc") or {}, control=found.get("control") or {})


def _threat_model(attacks: Mapping[str, AttackResult]) -> str:
    access = list(dict.fromkeys(each.access for each in attacks.values()))
    return f"Attackers with this access to the exported model: {', '.join(access)}; with the budgets that are named with each attack."


def conclude(found: Verification, sequence: Sequence | None, neutral: bool) -> Conclusion:
    """What may be said: evidence under tests, or that there is none; and what remains open."""
    passed = [name for name, each in found.attacks.items() if each.status == "pass"]
    late = [each.request for each in (sequence.earlier if sequence else ()) if each.status in ("fail", "inconclusive")]
    statement = {
        "pass": f"Evidence of removal under the tests {', '.join(passed)}, with the budgets and thresholds named in this record.",
        "fail": f"No evidence of removal: the audit failed ({'; '.join(found.reasons)}).",
        "inconclusive": f"No evidence of removal: the audit decided nothing ({'; '.join(found.reasons)}).",
    }[found.status]
    return Conclusion(
        status=found.status,
        statement=statement + (f" Earlier requests that are no longer within their policy: {', '.join(late)}." if late else ""),
        residual_risk=list(_risks(found, sequence, neutral)),
        audit_again=list(AGAIN),
    )


def _risks(found: Verification, sequence: Sequence | None, neutral: bool) -> Iterable[str]:
    yield "A pass speaks of these tests and budgets only: stronger attacks, longer training or other wordings may still bring facts back."
    if found.untested:
        yield f"Attacks that could show nothing here, so that they tell nothing: {', '.join(found.untested)}."
    unknown = found.knowledge.asked - found.knowledge.known
    if unknown:
        yield f"{unknown} of {found.knowledge.asked} rows asked were not answered by the model before either: nothing is known of them."
    if found.knowledge.people < 3:
        yield f"Intervals are drawn over people; with {found.knowledge.people} they have little or no width, and say nothing of others."
    if found.reference is None:
        yield "There is no model that never saw the rows to compare with: right guesses count as recovered."
    if neutral:
        yield "No retain set was given: utility is that of neutral questions only, and what else the model lost is unknown."
    unchecked = [each.request for each in (sequence.earlier if sequence else ()) if each.status == "not checked"]
    if unchecked:
        yield f"Earlier requests that could not be audited again: {', '.join(unchecked)}."


def _sequence(job: Job, results: Mapping[str, Any]) -> Sequence:
    earlier = [_earlier(job, number, each, results) for number, each in enumerate(job.chain.deletions, 1)]
    retain = {name: figures["accuracy"] for name, figures in results["splits"]["retain"].items()}
    is_first = job.chain.deletions[0].knew.resolve() == job.model.resolve()
    first = retain["base"] if is_first else retain.get("original")
    drop = None if first is None else first - retain["unlearned"]
    drift = Drift(requests=len(earlier) + 1, first=first, before=retain["base"], after=retain["unlearned"], drop=drop)
    return Sequence(earlier=earlier, drift=drift)


def _earlier(job: Job, number: int, deletion: Deletion, results: Mapping[str, Any]) -> EarlierDeletion:
    path = job.out / f"audit-earlier-{number}" / "audit.json"
    audit = read_json(path) if path.is_file() else None
    told = results["splits"].get(f"forget_{deletion.request}", {}).get("unlearned", {}).get("accuracy")
    gone = deletion.why or "the model that knew its facts is gone, so that nobody can say which were known"
    return EarlierDeletion(
        request=deletion.request,
        record=deletion.record,
        commitment=deletion.commitment,
        base=deletion.base,
        policy=dict(deletion.policy),
        rows=len(deletion.rows) if deletion.rows else None,
        status=audit["verdict"]["status"] if audit else "not checked",
        reason="; ".join(audit["verdict"]["reasons"]) if audit else gone,
        known=audit["knowledge"]["known"] if audit else None,
        still_told=told,
        utility=audit["utility"]["ratio"] if audit else None,
    )
