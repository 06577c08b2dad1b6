"""`vgid record replay` as a function: run a recorded request again from its record, and compare what comes out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vgid.auditing.policy import Policy
from vgid.config import RunConfig, validate_config
from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.errors import ConfigError, DataError, OutputError, RunError
from vgid.model_card import NAME as MODEL_CARD
from vgid.progress import Stages
from vgid.requests.build_record import hardware, input_commitments
from vgid.requests.files import MERGED, RECORD, digests, files_below, model_folder, sha256
from vgid.requests.forget import forget
from vgid.requests.keys import Key, default_key, read_key
from vgid.requests.manifest import verify_record
from vgid.requests.options import ForgetOptions
from vgid.requests.previous import PreviousDeletions, model_before, notes_of, read_previous_deletions
from vgid.requests.record import ModelState, Record, read_record
from vgid.requests.request import ParsedRequest, parse_request
from vgid.requests.retrain import RetrainOptions, of_the_request, retrain
from vgid.results import versions
from vgid.run_folder import check_output
from vgid.unlearning import reading_options

log = logging.getLogger("vgid")
Values = dict[str, Any]
NOT_FIGURES = ("verification.policy_source", "verification.policy_fixed", "verification.reference.name")
"""What may differ in a replay: where the policy came from, when it was fixed, and where the reference lies."""
INPUTS = {"request", "retain", "details"}
OPTIONS: dict[str, Any] = {"max_rows": int | None, "allow_unknown": bool, "without": list}
EXACT_OPTIONS: dict[str, Any] = {"max_rows": int | None, "leave_out": bool}
"""What `procedure.options` holds of a run of `vgid forget`, and of `vgid retrain`, beside commitments to its inputs."""


@dataclass(frozen=True)
class ReplayOptions:
    """The options of `vgid record replay`. What is None is looked for where the recorded run found it.

    Attributes:
        folder: folder of the recorded run.
        out: folder of the replay.
        model: folder or hub id of the model before.
        request: the request folder.
        retain: rows to keep.
        reference: folder or hub id of the reference, where the run had one.
        image_root: folder that image paths are relative to, where the run had one.
        earlier_run: folder of the run that this one came after or went on from, where it did.
        earlier: request folders of earlier runs, where they have moved.
        key: file with the recorded run's key, which becomes that of the replay.
        overwrite: replace what an earlier run left in `out`.
    """

    folder: Path
    out: Path
    model: str | None = None
    request: Path | None = None
    retain: Path | None = None
    reference: str | None = None
    image_root: Path | None = None
    earlier_run: Path | None = None
    earlier: tuple[Path, ...] = ()
    key: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ReplayResult:
    """What a replay gave. Each difference is a pair: what is recorded, and what the replay gave.

    Attributes:
        recorded: SHA-256 of the recorded `record.json`.
        replayed: SHA-256 of the replay's.
        weights: files of the model after that differ, with their SHA-256; None where there is no such file.
        figures: results that differ, by their place in the record.
        environment: versions and hardware that differ.
    """

    recorded: str
    replayed: str
    weights: Mapping[str, tuple[Any, Any]]
    figures: Mapping[str, tuple[Any, Any]]
    environment: Mapping[str, tuple[Any, Any]]

    @property
    def equal(self) -> bool:
        """Whether the same weights and figures came out."""
        return not self.weights and not self.figures

    @property
    def means(self) -> str:
        """What the comparison shows, in words."""
        if self.equal:
            return "The same weights and figures came out again."
        if self.environment:
            return f"Other hardware or library versions change bits: {_in_words(self.environment)}."
        return (
            "Hardware and library versions are those of the record, so the cause is another: changed code of the same version, "
            "another number of threads, or operations of an accelerator that do not repeat."
        )

    def as_json(self) -> Values:
        """Return the object that `vgid record replay --json` prints (schema `vgid.record-replay/1`)."""
        parts = {"weights": self.weights, "figures": self.figures, "environment": self.environment}
        found = {name: {place: {"recorded": old, "replayed": new} for place, (old, new) in each.items()} for name, each in parts.items()}
        head = {"schema": "vgid.record-replay/1", "recorded": self.recorded, "replayed": self.replayed, "equal": self.equal}
        return {**head, **found, "means": self.means}


@dataclass(frozen=True)
class _Inputs:
    """What the recorded run is given again, compared with its record; `model` is None where it starts from an earlier run."""

    model: str | None
    request: Path
    retain: Path | None
    reference: str | None
    after: Path | None = None
    continued: Path | None = None


def replay(options: ReplayOptions, *, stages: Stages) -> ReplayResult:
    """Run a recorded request again with the settings of its record, and compare weights and figures with it.

    Args:
        options: what to do.
        stages: shows and times what is done.

    Returns:
        What differs.

    Raises:
        ConfigError: the key is missing, the settings are not those of this version, or the run cannot be replayed.
        DataError: there is no record, or an input is not found, or is not the recorded one.
        ModelError: a model cannot be loaded.
        OutputError: the folder holds another run, or cannot be written.
        RunError: the recorded run was altered; or a step failed, and the same call continues from there.
    """
    folder, out = options.folder, Path(os.path.realpath(options.out))
    record, notes = read_record(folder / RECORD), notes_of(folder)
    if out.is_relative_to(os.path.realpath(folder)):
        raise OutputError("the replay would be written into the recorded run", where=options.out, fix="choose another --out")
    check_output(out, options.overwrite, resume=True, inputs=[folder, options.key])
    key_file = options.key or Path(notes.get("keys", {}).get(record.request.id, default_key(folder.resolve())))
    if not key_file.is_file():
        raise ConfigError("the recorded run's key is missing, so rows cannot be compared", where=key_file, fix="give it with --key")
    key = read_key(key_file)
    if problems := verify_record(folder, key).problems:
        raise RunError("the run was altered since its record was written", where=folder, got="\n  ".join(["", *problems]))
    if not _is_whole(record.procedure.options or {}, exact=record.exact is not None):
        raise ConfigError(
            "the record does not hold what a replay needs",
            where=folder / RECORD,
            expected=f"procedure.options with {', '.join((*(EXACT_OPTIONS if record.exact is not None else OPTIONS), 'inputs'))}",
            fix="repeat the request with vgid forget or vgid retrain",
        )
    config = _config(folder / RECORD, record)
    root = options.image_root or notes.get("image roots", {}).get(record.request.id)
    if root is not None:  # no record names it
        config = config.model_copy(update={"data": config.data.model_copy(update={"image_root": str(root)})})
    inputs = _inputs(options, record, notes, key, config)
    now = _changed({**record.procedure.versions, **record.procedure.hardware}, {**versions(), **hardware()})
    if now:
        log.warning("other hardware or library versions than recorded may change bits: %s", _in_words(now))
    given = record.procedure.options or {}
    if record.exact is not None:
        assert inputs.model is not None and inputs.retain is not None  # retraining always has both
        again = RetrainOptions(
            inputs.model, inputs.request, inputs.retain, out, config, given["leave_out"], given["max_rows"], key_file, options.overwrite
        )
        done = retrain(again, stages=stages)
    else:
        done = forget(_as_options(record, inputs, replace(options, out=out), config, key_file), stages=stages)
    return compare(record, Record(**done.record), recorded=sha256(folder / RECORD), replayed=done.sha256)


def _is_whole(options: Mapping[str, Any], *, exact: bool) -> bool:
    """Whether a record's options are there with their types; those of earlier releases lack some."""
    kinds, inputs = EXACT_OPTIONS if exact else OPTIONS, options.get("inputs")
    return isinstance(inputs, dict) and inputs.keys() >= INPUTS and all(isinstance(options.get(name, ...), kinds[name]) for name in kinds)


def _as_options(record: Record, inputs: _Inputs, options: ReplayOptions, config: RunConfig, key: Path) -> ForgetOptions:
    given, found = record.procedure.options or {}, record.verification
    assert found.profile != "none"  # that is retraining
    return ForgetOptions(
        model=inputs.model,
        request=inputs.request,
        out=options.out,
        config=config,
        retain=inputs.retain,
        reference=inputs.reference,
        policy=_policy(found.policy),
        profile=found.profile,
        max_rows=given["max_rows"],
        after=inputs.after,
        continued=inputs.continued,
        earlier=options.earlier,
        allow_unknown=given["allow_unknown"],
        key=key,
        overwrite=options.overwrite,
        without=tuple(given["without"]),
    )


def _policy(values: Mapping[str, Any]) -> Policy:
    try:
        return Policy(**values)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, each["loc"])) for each in error.errors()[:5])
        raise ConfigError("this version has other policies than that of the record", where="verification.policy", got=places) from None


def _config(path: Path, record: Record) -> RunConfig:
    """Return the recorded settings; none is left out, and none is added by this version.

    Raises:
        ConfigError: this version has others.
    """
    config = validate_config(record.procedure.config)
    changed = _changed(_flat(record.procedure.config), _flat(config.model_dump(mode="json")))
    if changed:
        raise ConfigError(
            "this version has other settings than the record",
            where=path,
            got=", ".join(changed),
            fix=f"install the recorded version, vgid {record.procedure.versions.get('vgid', '')}",
        )
    return config


def _inputs(options: ReplayOptions, record: Record, notes: Mapping[str, Any], key: Key, config: RunConfig) -> _Inputs:
    """Find the inputs, and compare them with the record.

    Raises:
        ConfigError: the run did not have what is given.
        DataError: an input is not found, or is not the recorded one; all of these together.
    """
    name, before, reference = record.request.id, record.model.before, record.verification.reference

    def noted(kind: str, option: str) -> Path:
        path = notes.get(kind, {}).get(name)
        if path is None or not Path(path).exists():
            what = f"recorded {option.replace('-', ' ')}"
            lost = f"the {what} is no longer where the run found it"
            unknown = f"where the {what} lies is not known: the run was purged, or was handed on"
            raise DataError(lost if path else unknown, where=options.folder, fix=f"give it with --{option}")
        return Path(path)

    goes_on, follows = record.model.continued is not None, record.sequence is not None
    for given, recorded, option in (
        (options.retain, record.data.retain == "given", "retain"),
        (options.reference, reference, "reference"),
        (options.model, not (goes_on or follows), "model"),
        (options.earlier_run, goes_on or follows, "earlier-run"),
        (options.earlier, follows, "earlier"),
    ):
        if given and not recorded:
            raise ConfigError(f"the recorded run had no --{option}", where=f"--{option}", fix="leave it out")
    request = parse_request(options.request or noted("folders", "request"), config.data)
    retain = (options.retain or noted("retain", "retain")) if record.data.retain == "given" else None
    start = (options.earlier_run or noted("runs", "earlier-run")) if goes_on or follows else None
    problems: list[str] = []
    if start is None:
        model = options.model or (before.name if before.revision else notes.get("models", {}).get(name, before.name))
    elif goes_on:
        model = model_before(start, request)
        problems += [] if sha256(start / RECORD) == record.model.continued else ["earlier run: another record"]
    else:
        model = str(start / MERGED)
        problems += _other_deletions(record, read_previous_deletions(start, options.earlier, config.data))
    compared = options.reference or (reference.name if reference else None)
    problems += [*_other_files("model", before, model), *_other_rows(record, request, retain, key, config)]
    if reference and compared:
        problems += _other_files("reference", reference, compared)
    if problems:
        raise DataError(
            "inputs are not those of the record",
            where=options.folder,
            expected="the files and rows that the record's digests are of",
            got="\n  ".join(["", *problems]),
            fix="give the recorded ones by the options of this command",
        )
    after, continued = (start, None) if follows else (None, start)
    return _Inputs(None if start else model, request.folder, retain, compared, after, continued)


def _other_deletions(record: Record, previous: PreviousDeletions) -> Iterator[str]:
    """What differs between the recorded earlier deletions and those found. Their records may be those of replays."""
    recorded = record.sequence.earlier if record.sequence else ()
    found = previous.deletions
    if [(each.request, each.commitment, each.policy) for each in recorded] != [
        (each.request, each.commitment, each.policy) for each in found
    ]:
        yield "earlier requests: others"
        return
    for old, new in zip(recorded, found, strict=True):
        now = len(new.rows) if new.rows else None
        if old.rows != now:
            changed = "its rows were not there then, and are now" if old.rows is None else "other rows"
            yield f"earlier request {old.request}: {new.problem if now is None else changed}"


def _other_files(what: str, recorded: ModelState, name: str) -> Iterator[str]:
    folder = model_folder(name)[0]
    found = {each["path"]: each["sha256"] for each in digests(folder, files_below(folder))}
    for path, (old, new) in _changed({each.path: each.sha256 for each in recorded.files}, found).items():
        yield f"{what}: {path} is {'missing' if new is None else 'not in the record' if old is None else 'another'}"


def _other_rows(record: Record, request: ParsedRequest, retain: Path | None, key: Key, config: RunConfig) -> Iterator[str]:
    rows: list[Example] | None = None
    if retain is not None:
        rows = load_examples(retain, **reading_options(config, False))
        if (record.procedure.options or {}).get("leave_out"):
            gone = {row.id for found in of_the_request(request, rows).values() for row in found}
            rows = [row for row in rows if row.id not in gone]
    found, recorded = input_commitments(request, rows, key), (record.procedure.options or {})["inputs"]
    same = {
        "request": key.rows(request.everything) == record.data.commitment,
        "retain": rows is None or key.rows(rows) == record.data.retain_commitment,
    }
    for name, equal in same.items():
        if found[name] != recorded[name]:
            yield f"{name}: {'the same rows in another order' if equal else 'other rows'}"
    if found["details"] != recorded["details"]:
        yield "request: request.yaml states something else"


def compare(record: Record, again: Record, *, recorded: str, replayed: str) -> ReplayResult:
    """Compare the record of a replay with that of the run. The model card is left out; its figures are compared in the record.

    Args:
        record: the record of the run.
        again: that of the replay.
        recorded: SHA-256 of the record.
        replayed: SHA-256 of the replay's.

    Returns:
        What differs.
    """
    weights = ({each.path: each.sha256 for each in found.model.after.files if each.path != MODEL_CARD} for found in (record, again))
    environment = ({**found.procedure.versions, **found.procedure.hardware} for found in (record, again))
    return ReplayResult(recorded, replayed, _changed(*weights), _changed(_figures(record), _figures(again)), _changed(*environment))


def _figures(record: Record) -> Values:
    content = record.as_json()
    parts = {name: content[name] for name in ("data", "verification", "exact")}
    if content["sequence"]:  # an earlier run may itself be a replay, with a record and a folder of its own
        earlier = [{key: value for key, value in each.items() if key not in ("record", "base")} for each in content["sequence"]["earlier"]]
        parts["sequence"] = {**content["sequence"], "earlier": earlier}
    parts |= {"conclusion": {"status": content["conclusion"]["status"]}, "procedure": {"training": content["procedure"]["training"]}}
    return {place: value for place, value in _flat(parts).items() if place not in NOT_FIGURES}


def _flat(values: Any, place: str = "") -> Values:
    """Nested values by dotted place; empty containers are values, too."""
    if isinstance(values, Mapping | list) and values:
        items = values.items() if isinstance(values, Mapping) else enumerate(values)
        return {name: value for key, each in items for name, value in _flat(each, f"{place}.{key}" if place else str(key)).items()}
    return {place: values}


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of all names that differ; a missing name differs from one whose value is None, and is given as None."""
    names = [name for name in {**old, **new} if (name in old, old.get(name)) != (name in new, new.get(name))]
    return {name: (old.get(name), new.get(name)) for name in names}


def _in_words(environment: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {old} recorded and {new} here" for name, (old, new) in environment.items())
