"""Building of the record from the files that the steps of a run left."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vgid.auditing.policy import Policy
from vgid.curves import thinned
from vgid.data.example import Example
from vgid.outcome import FAILED, Outcome, what_is_lost
from vgid.reading import read_json
from vgid.report.words import people_in_words
from vgid.requests.files import CHECKS, MERGED, RECORD, digests, files_below, sha256
from vgid.requests.keys import Key
from vgid.requests.next_steps import next_steps, still_answered
from vgid.requests.previous import PreviousDeletion, without_paths
from vgid.requests.record import (
    SCHEMA,
    Answered,
    AttackResult,
    Conclusion,
    DataPart,
    DeletionSequence,
    Drift,
    EarlierDeletion,
    Enrichment,
    FileDigest,
    Known,
    Level,
    ModelPart,
    ModelState,
    Procedure,
    Record,
    RequestPart,
    Utility,
    Verification,
)
from vgid.requests.request import PRIVATE, ParsedRequest
from vgid.requests.resolved import ResolvedRun
from vgid.requests.state import RunState, now
from vgid.results import versions

CURVE_POINTS = 60
"""Points of a curve of training in a record, at most."""
COPIES = (
    "The model before unlearning still holds what was forgotten. Its copies, and adapters made from it, must be retired; this record does "
    "not show that they were."
)
AUDIT_AGAIN = (
    "when the model is trained further, merged with another one, or converted to another precision than was tested",
    "when a stronger attack than those named here becomes known",
)


def build_record(run: ResolvedRun, key: Key, state: RunState) -> Record:
    """Build the record; it holds file names, figures and settings, and keyed references in place of people.

    Args:
        run: everything that decides the run.
        key: makes the references to people and rows.
        state: start and duration of the steps.

    Returns:
        The validated record.
    """
    results = read_json(run.out / "evaluation" / "results.json")
    neutral, data = run.options.retain is None, _data(run, key)
    verification = _verification(run, state, results, read_json(run.out / "audit" / "audit.json"))
    sequence = _sequence(run, results) if run.previous.deletions else None
    exported, continued = run.out / MERGED, run.options.continued
    after = ModelState(name=MERGED, revision=None, files=_digests(exported))
    return Record(
        schema=SCHEMA,
        request=request_part(run.request, run.rows, key, state.content["started"]),
        model=ModelPart(
            before=model_state(run.model, run.name, run.revision),
            after=after,
            continued=sha256(continued / RECORD) if continued else None,
            form="merged",
            copies=COPIES,
        ),
        data=data,
        procedure=_procedure(run, key, state),
        verification=verification,
        sequence=sequence,
        conclusion=conclude(verification, sequence, next_steps(run, verification, _learning_rate(run)), data.enrichment, neutral=neutral),
        artefacts=artefacts(run.out, len(run.previous.deletions)),
    )


def _learning_rate(run: ResolvedRun) -> float:
    """The learning rate that a run took; that of its settings, where nothing was trained."""
    automatic = read_json(run.work / "unlearn" / "results.json").get("automatic", {})
    rate = automatic.get("learning_rate", run.config.training.learning_rate)
    return 0.0 if rate == "auto" else float(rate)


def _digests(folder: Path) -> list[FileDigest]:
    return [FileDigest(**each) for each in digests(folder, files_below(folder))]


def artefacts(out: Path, earlier: int = 0) -> list[FileDigest]:
    """Return the digests of all results in a run's folder.

    Args:
        out: the run's folder.
        earlier: number of earlier requests that were audited again.
    """
    folders = [out / name for name in (CHECKS, "evaluation", "audit")]
    folders += [out / f"audit-earlier-{number}" for number in range(1, earlier + 1)]
    paths = [path for folder in folders if folder.is_dir() for path in files_below(folder)]
    return [FileDigest(**each) for each in digests(out, paths)]


def model_state(folder: Path, name: str, revision: str | None) -> ModelState:
    """Return a model by name, with the digests of its files."""
    return ModelState(name=name, revision=revision, files=_digests(folder))


def request_part(request: ParsedRequest, rows: Sequence[Example], key: Key, started: str) -> RequestPart:
    """Describe a request without naming anybody.

    Args:
        request: the request folder as it was read.
        rows: what must be forgotten.
        key: makes the references to people.
        started: time at which the run began.
    """
    stated = request.details.model_dump(mode="json", exclude=PRIVATE) | {"id": request.id_by(key)}
    return RequestPart(
        **stated,
        scope="part" if request.kept else "everything",
        subjects=sorted({key.subject(row.subject) for row in rows if row.subject}),
        rows_without_subject=sum(row.subject is None for row in rows),
        started=started,
        completed=now(),
    )


def _data(run: ResolvedRun, key: Key) -> DataPart:
    rows, retain = run.rows, run.read_retain()
    made = run.out / CHECKS / "enrichment.json"
    return DataPart(
        rows=len(rows),
        with_image=sum(bool(row.images) for row in rows),
        text_only=sum(not row.images for row in rows),
        images=len({ref.fingerprint for row in rows for ref in row.images}),
        commitment=key.rows(run.request.everything),
        kept=len(run.request.kept),
        enrichment=Enrichment(**{name: value for name, value in read_json(made).items() if name != "schema"}) if made.is_file() else None,
        anchors=len(run.anchor_rows),
        retain="given" if run.options.retain else "neutral",
        retain_rows=len(retain),
        retain_commitment=key.rows(retain),
    )


def _procedure(run: ResolvedRun, key: Key, state: RunState) -> Procedure:
    results = read_json(run.work / "unlearn" / "results.json")
    return Procedure(
        method=results["method"],
        config=without_paths(run.config),
        seed=run.config.seed,
        versions=versions(),
        hardware=hardware(),
        training=results["training"],
        seconds={name: step["seconds"] for name, step in state.content["steps"].items()},
        options={
            "max_rows": run.options.max_rows,
            "allow_unknown": run.options.allow_unknown,
            "without": list(run.options.without),
            "inputs": input_commitments(run.request, run.read_retain() if run.options.retain else None, key),
        },
        curves=thinned(results.get("curves") or {}, CURVE_POINTS),
    )


def input_commitments(request: ParsedRequest, retain: Sequence[Example] | None, key: Key) -> dict[str, str | None]:
    """Commit to what a run was given, so that a replay can check that it is given the same.

    Args:
        request: the request.
        retain: the rows to keep that were given; None where there were none.
        key: the run's key.

    Returns:
        Keyed digests, by name: `request` and `retain` of the rows in their order, on which the draw of rows depends, and `details` of all
        that `request.yaml` states, names and scope too.
    """
    return {
        "request": key.ordered(request.everything),
        "details": key.value("details", request.details.model_dump(mode="json", exclude_defaults=True)),
        "retain": None if retain is None else key.ordered(retain),
    }


def hardware() -> dict[str, str]:
    """Return machine type, operating system, number of processors and name of the accelerator."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"machine": platform.machine(), "system": platform.system(), "processors": str(os.cpu_count()), "device": device}


def _verification(run: ResolvedRun, state: RunState, results: Mapping[str, Any], audit: Mapping[str, Any]) -> Verification:
    attacks = {name: _attack(each) for name, each in audit["attacks"].items()}
    access = ", ".join(dict.fromkeys(each.access for each in attacks.values()))
    policy = run.options.policy
    source = "a record" if isinstance(policy, Policy) else policy.name if policy else "the package's own"
    verdict = audit["verdict"]
    return Verification(
        threat_model=f"Attackers with this access to the exported model: {access}; each attack has the budget that is named with it.",
        profile=audit["profile"],
        policy=audit["policy"],
        policy_source=source,
        policy_fixed=state.content["started"],
        reference=model_state(run.reference, str(run.options.reference), None) if run.reference else None,
        knowledge=Known(**audit["knowledge"]),
        utility=Utility(**audit["utility"]),
        attacks=attacks,
        outcome=whole_outcome(results["outcome"], read_json(run.work / "unlearn" / "results.json")["outcome"]),
        evaluation=results["splits"],
        export=read_json(run.out / CHECKS / "export.json"),
        status=verdict["status"],
        reasons=verdict["reasons"],
        untested=verdict["untested"],
    )


def whole_outcome(asked: Mapping[str, Any], trained: Mapping[str, Any]) -> Answered:
    """Join what was asked of the exported model with what the training run lost of the rows that it held out."""
    names = ("allowed_loss", "subjects", "subjects_lost", "allowed_subjects", "protected_by")
    aside = {name: value for name, value in trained.items() if name in names or name.startswith("aside_")}
    # The training run of a request asks nothing itself, so its own status never says that it damaged the model.
    damaged = asked["status"] == "forgotten" and not Outcome(**trained).intact
    return Answered(**{**asked, **aside, "status": "damaged" if damaged else asked["status"]})


def _attack(found: Mapping[str, Any]) -> AttackResult:
    same = {name: found[name] for name in ("access", "budget", "required", "status", "reason")}
    return AttackResult(
        **same, tries=found.get("tries", ""), allowed=found["most"], levels={name: _level(each) for name, each in found["levels"].items()}
    )


def _level(found: Mapping[str, Any]) -> Level:
    same = {name: found[name] for name in ("facts", "people", "share", "interval", "clean", "status", "reason")}
    return Level(**same, rates=found.get("recovered") or found.get("auc") or {}, control=found.get("control") or {})


def conclude(
    found: Verification, sequence: DeletionSequence | None, next_steps: Sequence[str], enrichment: Enrichment | None, *, neutral: bool
) -> Conclusion:
    """Say what the results allow to say: evidence of removal under the tests, or none, and the risks that remain.

    A model that still answers the request's rows has failed, whatever the audit found.

    Args:
        found: tests and their results.
        sequence: earlier requests and how they stand now; None for a first request.
        next_steps: what to do now.
        enrichment: what was made from the rows; None for nothing.
        neutral: neutral rows stood in for a retain set.

    Returns:
        Status, statement, residual risks, and when to audit again.
    """
    passed = [name for name, each in found.attacks.items() if each.status == "pass"]
    failed = found.outcome.status in FAILED
    late = [each.request for each in (sequence.earlier if sequence else ()) if each.status in ("fail", "inconclusive")]
    statement = {
        "pass": f"Evidence of removal under the tests {', '.join(passed)}, with the budgets and thresholds named in this record.",
        "fail": f"No evidence of removal: the audit failed ({'; '.join(found.reasons)}).",
        "inconclusive": f"No evidence of removal: the audit was inconclusive ({'; '.join(found.reasons)}).",
    }[found.status]
    if failed:
        statement = f"No evidence of removal: {found.outcome.status}. {still_answered(found.outcome)}"
    if found.outcome.status == "damaged":
        statement = f"Forgotten, but too much else is lost: {what_is_lost(found.outcome.model_dump())}."
    return Conclusion(
        status="fail" if failed else found.status,
        statement=statement + (f" Earlier requests that no longer meet their policy: {', '.join(late)}." if late else ""),
        next_steps=list(next_steps),
        residual_risk=list(_risks(found, sequence, enrichment, neutral)),
        audit_again=list(AUDIT_AGAIN),
    )


def _risks(found: Verification, sequence: DeletionSequence | None, enrichment: Enrichment | None, neutral: bool) -> Iterator[str]:
    yield "A pass holds for these tests and budgets only: stronger attacks, longer training or other wordings may still recover facts."
    yield from enrichment.left_open if enrichment else ("Only the forms of the request's own rows were trained and asked.",)
    if found.untested:
        yield f"Attacks that could not show anything on this model, so that their result says nothing: {', '.join(found.untested)}."
    asked, people = found.knowledge.asked, found.knowledge.people
    unknown = asked - found.knowledge.known
    if unknown:
        yield f"{unknown} of {asked} rows asked were not answered by the model before unlearning either, so nothing is known about them."
    if people < 2 * found.policy["least_people"]:
        who = people_in_words(people)
        yield f"The request is about {who}: the audit went by facts, and small leaks (see `audit/audit.html`) would not be seen."
    if found.reference is None:
        yield "No reference (a model that never saw the rows) was given to compare with: correct guesses count as recovered."
    if neutral:
        more = f", and on {found.outcome.aside_replayed} held-out answers of its own" if found.outcome.aside_replayed else ""
        yield f"No retain set was given: utility was measured on neutral questions{more}; what else the model lost is unknown."
    unchecked = [each.request for each in (sequence.earlier if sequence else ()) if each.status == "not checked"]
    if unchecked:
        yield f"Earlier requests that could not be audited again: {', '.join(unchecked)}."


def _sequence(run: ResolvedRun, results: Mapping[str, Any]) -> DeletionSequence:
    previous = run.previous.deletions
    earlier = [_earlier(run, number, each, results) for number, each in enumerate(previous, 1)]
    retain = {name: figures["accuracy"] for name, figures in results["splits"]["retain"].items()}
    is_first = previous[0].base_folder.resolve() == run.model.resolve()
    first = retain["base"] if is_first else retain.get("original")
    drop = None if first is None else first - retain["unlearned"]
    drift = Drift(requests=len(earlier) + 1, first=first, before=retain["base"], after=retain["unlearned"], drop=drop)
    return DeletionSequence(earlier=earlier, drift=drift)


def _earlier(run: ResolvedRun, number: int, deletion: PreviousDeletion, results: Mapping[str, Any]) -> EarlierDeletion:
    path = run.out / f"audit-earlier-{number}" / "audit.json"
    audit = read_json(path) if path.is_file() else None
    answered = results["splits"].get(f"forget_{deletion.request}", {}).get("unlearned", {}).get("accuracy")
    unchecked = deletion.problem or "the model that knew its facts no longer exists, so nobody can tell which ones it knew"
    return EarlierDeletion(
        request=deletion.request,
        record=deletion.record,
        commitment=deletion.commitment,
        base=deletion.base,
        policy=dict(deletion.policy),
        rows=len(deletion.rows) if deletion.rows else None,
        status=audit["verdict"]["status"] if audit else "not checked",
        reason="; ".join(audit["verdict"]["reasons"]) if audit else unchecked,
        known=audit["knowledge"]["known"] if audit else None,
        still_told=answered,
        utility=audit["utility"]["ratio"] if audit else None,
    )
