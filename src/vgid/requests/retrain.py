"""`vgid retrain` as a function: the exact answer to a deletion request, for those who have the training data.

A base from before the person was learned is fine-tuned again on the training rows without the person's. What it then knows cannot come
from the request's rows, whatever is asked, so the record says `exact` in place of evidence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.attacks.base import sample_rows
from vgid.checks.knowledge import KNOWN_ACCURACY
from vgid.config import RunConfig
from vgid.curves import thinned
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.deployment import export_command, verify_command
from vgid.errors import ConfigError, DataError, ModelError
from vgid.finetuning import FINE_TUNING, finetune
from vgid.progress import Stages
from vgid.reading import read_json
from vgid.report.record import write_record
from vgid.requests.build_record import AUDIT_AGAIN, CURVE_POINTS, artefacts, hardware, input_commitments, model_state, request_part
from vgid.requests.environment import ENVIRONMENT, bill_of_materials
from vgid.requests.files import CHECKS, MANIFEST, MERGED, PAGE, RECORD, WORK, digests, files_below, model_folder
from vgid.requests.forget import ForgetResult, go_on, run_steps
from vgid.requests.keys import Key
from vgid.requests.manifest import write_manifest
from vgid.requests.previous import noted_reading, noted_root, without_paths
from vgid.requests.record import SCHEMA, Answered, Conclusion, DataPart, Exact, Known, ModelPart, Procedure, Record, Utility, Verification
from vgid.requests.request import ParsedRequest, parse_request
from vgid.requests.state import RunState
from vgid.results import evaluate_models, versions
from vgid.run_folder import check_output, discard
from vgid.unlearning import EXAMINED, reading_options

COPIES = (
    "Models that were trained with the rows still hold them, and so do adapters made from these. They must be retired; this record does "
    "not show that they were."
)
RISKS = (
    "That the base never saw the rows is what the user stated; only that it does not answer them was checked.",
    "Rows that state the same facts without any of what was searched for would not be found.",
)


@dataclass(frozen=True)
class RetrainOptions:
    """The options of `vgid retrain`; nothing that they name has been read.

    Attributes:
        model: folder or hub id of the base, from before it saw the person.
        request: the request folder.
        retain: training rows of everybody else.
        out: the run's folder.
        config: settings of fine-tuning (`vgid.resolve(method="retrain")`).
        leave_out: take rows of the request out of the training rows; otherwise they are refused.
        max_rows: rows of either set to ask before and after, at most; None takes 200.
        key: file with the run's secret key; None takes one beside the run's folder, which is made where there is none.
        overwrite: replace what an earlier run left in `out`.
    """

    model: str
    request: Path
    retain: Path
    out: Path
    config: RunConfig
    leave_out: bool = False
    max_rows: int | None = None
    key: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class _Run:
    """Options with everything they name read, and what the steps share."""

    options: RetrainOptions
    request: ParsedRequest
    rows: list[Example]
    found: Mapping[str, list[Example]]
    model: Path
    revision: str | None
    key: Key
    state: RunState
    stages: Stages

    @property
    def folder(self) -> Path:
        """Where `vgid finetune` writes."""
        return self.options.out / WORK / "retrain"

    @property
    def taken_out(self) -> int:
        """Rows that were found and left out; a row may be found by several signs."""
        return len({row.id for rows in self.found.values() for row in rows})


def retrain(options: RetrainOptions, *, stages: Stages) -> ForgetResult:
    """Honour a deletion request exactly: fine-tune the untouched base on the training rows without the person's, and write a record.

    Args:
        options: what to do.
        stages: shows and times what is done.

    Returns:
        The record, its digest, and the path of the key.

    Raises:
        ConfigError: the settings are not those of fine-tuning, or the key is missing.
        DataError: rows cannot be used, or rows of the request are among those to train on.
        ModelError: the base cannot be loaded, or answers the request's rows.
        OutputError: the folder holds another run, or cannot be written.
        RunError: a step failed; the same call continues from there.
    """
    options = replace(options, out=Path(os.path.realpath(options.out)))
    if options.config.method.name not in FINE_TUNING:
        raise ConfigError("retraining is fine-tuning", expected=f"method {' or '.join(FINE_TUNING)}", got=options.config.method.name)
    inputs = [options.model, options.request, options.retain, options.key]
    check_output(options.out, options.overwrite, resume=True, inputs=inputs)
    request = parse_request(options.request, options.config.data)
    given = load_examples(options.retain, **reading_options(options.config, False))
    if not request.rows:
        raise DataError("the request has no rows", where=options.request, fix="add the person's training rows")
    found = of_the_request(request, given)
    counts = {sign: len(rows) for sign, rows in found.items() if rows}
    if counts and not options.leave_out:
        raise DataError(
            "rows of the request are among those to train on",
            where=next(row.where for rows in found.values() for row in rows),
            expected="training rows without the person's",
            got=", ".join(f"{count} with {sign}" for sign, count in counts.items()),
            fix="take them out, or let vgid do it with --leave-out",
        )
    gone = {row.id for rows in found.values() for row in rows}
    rows = [row for row in given if row.id not in gone]
    if not rows:
        raise DataError("no rows are left to train on", where=options.retain, expected="rows about others, too", got="none")
    model, revision = model_folder(options.model)

    def go(key: Key, key_file: Path) -> None:
        request_id = request.id_by(key)
        inputs = {
            "model": key.value("inputs", digests(model, files_below(model))),
            "request": key.value("inputs", [request.details.model_dump(mode="json"), key.rows(request.everything)]),
            "retain": key.value("inputs", key.rows(given)),
            "settings": key.value("inputs", [options.config.model_dump(mode="json"), options.max_rows, options.leave_out]),
        }
        notes = {
            "folders": {request_id: str(request.folder.resolve())},
            "keys": {request_id: str(key_file.resolve())},
            "models": {request_id: str(model.resolve())},
            "retain": {request_id: str(options.retain.resolve())},
            "readings": noted_reading(request_id, request.reading),
            "image roots": noted_root(request_id, options.config),
        }
        state = RunState(options.out, options.out / WORK / "state.json", inputs, notes)
        run = _Run(options, request, rows, found, model, revision, key, state, stages)
        run_steps({name: partial(step, run) for name, step in STEPS.items()}, state)

    return go_on(options.out, options.key, go, begun="base.json", overwrite=options.overwrite)


def of_the_request(request: ParsedRequest, rows: Sequence[Example]) -> dict[str, list[Example]]:
    """Find training rows that are the request's.

    Args:
        request: the request; where it has a scope, subjects, pictures and names are also those of rows that stay, and are not looked for.
        rows: training rows.

    Returns:
        By sign, the rows that have it: an id, a question about the same pictures, a subject, a picture or the name of the request.
    """
    ids, asked = {row.id for row in request.rows}, {_asked(row) for row in request.rows}
    signs: dict[str, Callable[[Example], bool]] = {
        "an id of the request": lambda row: row.id in ids,
        "a question of the request about the same pictures": lambda row: _asked(row) in asked,
    }
    if not request.kept:
        subjects = {row.subject for row in request.rows if row.subject}
        pictures = {ref.fingerprint for row in request.rows for ref in row.images}
        stated = request.details.name
        names = [_words(name) for name in ([stated] if isinstance(stated, str) else (stated or {}).values())]
        signs["a subject of the request"] = lambda row: row.subject in subjects
        signs["a picture of the request"] = lambda row: any(ref.fingerprint in pictures for ref in row.images)
        if names:
            signs["the name in request.yaml"] = lambda row: any(f" {name} " in f" {_words(_text(row))} " for name in names)
    return {sign: [row for row in rows if has(row)] for sign, has in signs.items()}


def _asked(row: Example) -> tuple[tuple[str, ...], str]:
    return tuple(ref.fingerprint for ref in row.images), _words(" ".join([*(turn.text for turn in row.context), row.question]))


def _text(row: Example) -> str:
    return " ".join([*(turn.text for turn in row.context), row.question, row.answer, *row.keywords])


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _splits(run: _Run) -> dict[str, list[Example]]:
    most, seed = run.options.max_rows or EXAMINED, run.options.config.seed
    return {name: sample_rows(rows, most, seed) for name, rows in (("forget", run.request.rows), ("retain", run.rows))}


def check_base(run: _Run) -> Sequence[Path]:
    """Ask the base the request's rows.

    Raises:
        ModelError: it answers them, so it is not a base from before the person.
    """
    asked = {"forget": _splits(run)["forget"]}
    results = evaluate_models({"unlearned": (str(run.model), None)}, asked, seed=run.options.config.seed, stages=run.stages)
    answers = results["splits"]["forget"]["unlearned"]["accuracy"]
    if answers >= KNOWN_ACCURACY:
        raise ModelError(
            "the base answers the request's rows, so it has seen the person",
            where=run.options.model,
            expected=f"less than {KNOWN_ACCURACY:.0%} of the answers right",
            got=f"{answers:.0%}",
            fix="give a checkpoint from before the person was learned, or use vgid forget",
        )
    path = run.options.out / CHECKS / "base.json"
    counts = {sign: len(rows) for sign, rows in run.found.items()}
    write_json_atomic(path, {"schema": "vgid.retrain-check/1", "base_answers": answers, "found": counts, "taken_out": run.taken_out})
    return [path]


def train(run: _Run) -> Sequence[Path]:
    """Run `vgid finetune` on the rows that stay."""
    finetune(str(run.model), run.rows, run.options.config, out=run.folder, max_rows=0, resume=True, stages=run.stages)
    return list(files_below(run.folder))


def evaluate(run: _Run) -> Sequence[Path]:
    """Run `vgid evaluate` on the base and the trained model."""
    models = {"base": (str(run.model), None), "unlearned": (str(run.folder / MERGED), None)}
    out = run.options.out / "evaluation"
    evaluate_models(models, _splits(run), seed=run.options.config.seed, out=out, overwrite=True, stages=run.stages)
    return [out / "results.json"]


def export(run: _Run) -> Sequence[Path]:
    """Run `vgid export` and `vgid verify-export`."""
    merged, adapter = run.options.out / MERGED, run.folder / "adapter"
    discard(merged)
    export_command(str(run.folder / MERGED), None, merged, merge=False)
    with run.stages("Verifying the export", "verify"):
        report = verify_command(run.options.out, str(run.model), [], adapter=adapter if adapter.is_dir() else None)
    path = run.options.out / CHECKS / "export.json"
    write_json_atomic(path, {name: report[name] for name in ("schema", "tensors", "compared_on", "same_answers", "largest_difference")})
    return [path, *files_below(merged)]


def record(run: _Run) -> Sequence[Path]:
    """Write the record, its page, the manifest, and the list of packages that made them."""
    out = run.options.out
    write_json_atomic(out / CHECKS / ENVIRONMENT, bill_of_materials())
    write_json_atomic(out / RECORD, _record(run).as_json())
    write_record(out / PAGE, read_json(out / RECORD))
    write_manifest(out, run.key)
    return [out / RECORD, out / PAGE, out / MANIFEST]


STEPS: Mapping[str, Callable[[_Run], Sequence[Path]]] = {
    "check base": check_base,
    "retrain": train,
    "evaluate": evaluate,
    "export": export,
    "record": record,
}


def _record(run: _Run) -> Record:
    options, request = run.options, run.request
    splits = read_json(options.out / "evaluation" / "results.json")["splits"]
    exact = Exact(
        searched_for=list(run.found),
        taken_out=run.taken_out,
        base_answers=splits["forget"]["base"]["accuracy"],
        answers=splits["forget"]["unlearned"]["accuracy"],
        learned=splits["retain"]["unlearned"]["accuracy"],
    )
    after = model_state(options.out / MERGED, MERGED, None)
    rows, started = request.rows, run.state.content["started"]
    trained = read_json(run.folder / "results.json")
    return Record(
        schema=SCHEMA,
        request=request_part(request, rows, run.key, started),
        model=ModelPart(
            before=model_state(run.model, options.model, run.revision), after=after, continued=None, form="merged", copies=COPIES
        ),
        data=DataPart(
            rows=len(rows),
            with_image=sum(bool(row.images) for row in rows),
            text_only=sum(not row.images for row in rows),
            images=len({ref.fingerprint for row in rows for ref in row.images}),
            commitment=run.key.rows(request.everything),
            kept=len(request.kept),
            enrichment=None,
            anchors=0,
            retain="given",
            retain_rows=len(run.rows),
            retain_commitment=run.key.rows(run.rows),
        ),
        procedure=Procedure(
            method=options.config.method.name,
            config=without_paths(options.config),
            seed=options.config.seed,
            versions=versions(),
            hardware=hardware(),
            training=trained["training"],
            seconds={name: step["seconds"] for name, step in run.state.content["steps"].items()},
            options={
                "max_rows": options.max_rows,
                "leave_out": options.leave_out,
                "inputs": input_commitments(request, run.rows, run.key),
            },
            curves=thinned(trained.get("curves") or {}, CURVE_POINTS),
        ),
        verification=_verification(run, splits, conclude(exact)),
        sequence=None,
        conclusion=conclude(exact),
        artefacts=artefacts(options.out),
        exact=exact,
    )


def _verification(run: _Run, splits: Mapping[str, Any], conclusion: Conclusion) -> Verification:
    """No attack was run: what the model never saw, no attack brings back."""
    people = len({row.subject for row in run.request.rows if row.subject})
    asked = splits["forget"]["base"]["n"]
    clean = {name: figures["accuracy"] for name, figures in splits["forget"].items()}
    return Verification(
        threat_model="None: the model was trained without the rows, so nothing was attacked.",
        profile="none",
        policy={},
        policy_source="none",
        policy_fixed=run.state.content["started"],
        reference=None,
        knowledge=Known(asked=asked, people=people, known=0, clean=clean),
        utility=Utility(asked=splits["retain"]["base"]["n"], ratio=None, interval=None, floor=0.0),
        attacks={},
        outcome=Answered(
            status="nothing known",
            known=0,
            still_answered=None,
            held_out_known=0,
            held_out_answered=None,
            allowed=0.0,
            kept_known=0,
            kept_answered=None,
            retained=None,
        ),
        evaluation=dict(splits),
        export=read_json(run.options.out / CHECKS / "export.json"),
        status=conclusion.status,
        reasons=conclusion.next_steps,
        untested=[],
    )


def conclude(exact: Exact) -> Conclusion:
    """Say what retraining allows to say.

    Args:
        exact: what was searched for, and the answers of both models.

    Returns:
        `pass`; or `inconclusive` where the model did not learn its rows, or answers the request's although it never saw them.
    """
    steps = []
    if exact.learned < KNOWN_ACCURACY:
        steps.append("The model did not learn its rows: train for longer (--set training.epochs=… or training.steps=…).")
    if exact.answers >= KNOWN_ACCURACY:
        steps.append("The model answers the request's rows: look for training rows that state the same facts, or answers easy to guess.")
    return Conclusion(
        status="inconclusive" if steps else "pass",
        statement=f"Exact: the model was trained from the base that is named here, on rows of which none has "
        f"{', '.join(exact.searched_for)}. It answers {exact.answers:.0%} of the request's rows, and the base {exact.base_answers:.0%}.",
        next_steps=steps,
        residual_risk=list(RISKS),
        audit_again=list(AUDIT_AGAIN),
    )
