"""The deletion record, schema `vgid.record/1`: the evidence that a regulator may ask for, and nothing of what was forgotten.

`record.schema.json`, in this package, is the published JSON Schema; the docstrings of the classes below are its descriptions. A change
that breaks readers takes a new schema number. Shares, accuracies and probabilities are in [0, 1], intervals are at 95 %, and digests are
SHA-256 in hexadecimal.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vgid.errors import DataError
from vgid.reading import read_json

SCHEMA: Literal["vgid.record/1"] = "vgid.record/1"
Status = Literal["pass", "fail", "inconclusive"]
Interval = tuple[float, float] | None
"""Lower and upper end; None where nothing was measured."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Part):
    """A file: path below the folder it is listed for, size, and SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class RequestPart(_Part):
    """The request. Subjects are keyed HMAC-SHA256, cut to 80 bits: opaque without the key, and for good once it is destroyed."""

    id: str
    received: str | None
    due: str | None
    ground: str | None
    approver: str | None
    reference: str | None
    kind: str
    """What the rows are about: people, or something else."""
    scope: Literal["everything", "part"]
    """Whether some of the request's rows were to be kept."""
    subjects: list[str]
    """Keyed references in place of names."""
    rows_without_subject: int
    started: str
    completed: str
    """Times in UTC, such as 2026-05-31T12:00:00Z."""


class ModelState(_Part):
    """A model and every file of it."""

    name: str
    revision: str | None
    """Commit on the hub; None for a folder."""
    files: list[FileDigest]


class ModelPart(_Part):
    """The model before and after. `copies` says what is left to do with the model before."""

    before: ModelState
    after: ModelState
    continued: str | None
    """SHA-256 of the record of the run whose result was trained on; None where training began with the model before."""
    form: Literal["merged"]
    copies: str


class Enrichment(_Part):
    """Rows that were made from the request's own, so that facts are forgotten in other forms too."""

    rows: dict[str, int]
    """How many join the forget side, are held out, and join the retain side; `facts`: what the model itself said of bare pictures."""
    made: dict[str, int]
    """Rows by kind."""
    left_out: dict[str, int]
    """Rows by kind that the model before did not answer as those that they were made from."""
    left_open: list[str]
    """What could not be made, and what that leaves open."""


class DataPart(_Part):
    """The rows, counted and committed to: HMAC-SHA256 over them, pictures included."""

    rows: int
    with_image: int
    text_only: int
    images: int
    """Different pictures."""
    commitment: str
    kept: int
    """Rows of the request outside its scope, which were to be kept."""
    enrichment: Enrichment | None
    anchors: int
    """Rows of earlier requests that were trained on again."""
    retain: Literal["given", "neutral"]
    retain_rows: int
    retain_commitment: str


class Procedure(_Part):
    """How it was done."""

    method: str
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    hardware: dict[str, str]
    training: str
    """Why training ended, in words."""
    seconds: dict[str, float]
    """Duration of each step."""
    options: dict[str, Any] | None = None
    """Options beside the settings, so that the run can be repeated; None in records of earlier releases."""
    curves: dict[str, list[list[float]]] | None = None
    """Parts of the loss, recall and drift by step, a point for several steps; None in records of earlier releases."""


class Level(_Part):
    """One level of an attack. Shares are of what the model before knew: 0 as one that never knew, 1 as before."""

    facts: int
    people: int
    share: float | None
    """Share that the attack recovers."""
    interval: Interval
    clean: dict[str, float | None]
    """Share of facts that each model gives when asked plainly."""
    rates: dict[str, float | None]
    """Recovery rate, or area under the ROC curve, by model."""
    control: dict[str, float | None]
    """The same on retain rows."""
    status: Status
    reason: str


class AttackResult(_Part):
    """One attack: what it may use, its budget, what the policy allows, and its result."""

    access: str
    tries: str = ""
    """What the attacker does, in plain words."""
    budget: dict[str, Any]
    allowed: float
    """Largest share that the policy allows."""
    required: bool
    """Whether the overall status depends on it."""
    status: Status
    reason: str
    levels: dict[str, Level]


class Known(_Part):
    """What the model before knew, by clean questions, and what each model still says."""

    asked: int
    people: int
    known: int
    clean: dict[str, float | None]


class Utility(_Part):
    """Part of what the model before answers on the retain rows that the model after answers too."""

    asked: int
    ratio: float | None
    interval: Interval
    floor: float


class Figures(_Part):
    """One model on one set of questions."""

    n: int
    accuracy: float
    accuracy_ci: tuple[float, float]
    rouge_l: float
    probability: float
    refusal_rate: float


class Answered(_Part):
    """Whether the model still answers, asked plainly: the request's rows, and held-out rows about the same facts."""

    status: Literal["forgotten", "not forgotten", "kept facts lost", "damaged", "not examined", "nothing known"]
    known: int
    """Rows of the request that the model before answered."""
    still_answered: float | None
    """Share of these that the model after answers."""
    held_out_known: int
    held_out_answered: float | None
    """The same of rows about these facts that were not trained on."""
    allowed: float
    """Share that may still be answered."""
    kept_known: int
    """Questions about facts outside the scope that the model before answered."""
    kept_answered: float | None
    """Share of these that the model after answers."""
    retained: float | None
    """Share of the retain rows answered before that still are."""
    aside_given: int = 0
    """Retain rows that were held out, never trained on, and recalled word for word by the model before."""
    aside_replayed: int = 0
    """The same of the model's own answers."""
    aside_pictures: int = 0
    """Rows of both with a picture."""
    aside_pictures_lost: int = 0
    """Number of these that are no longer recalled."""
    aside_texts: int = 0
    """Rows of both without a picture."""
    aside_texts_lost: int = 0
    """Number of these that are no longer recalled."""
    aside_lost: float | None = None
    """Share that is no longer recalled; a mean of rows with a picture and without where there are eight or more of each."""
    allowed_loss: float | None = None
    subjects: int = 0
    """Subjects of the retain set that were asked about one by one."""
    subjects_lost: int = 0
    """Those of whose rows, known before, no more than half are recalled."""
    allowed_subjects: int = 0
    protected_by: dict[str, int] = Field(default_factory=dict)
    """Rows trained on to keep other knowledge, by kind; `given` are those of the retain set."""


class Exact(_Part):
    """What stands in place of evidence: the model was trained again, from a base before the rows and without them. Shares are accuracies
    on rows asked."""

    searched_for: list[str]
    """What rows to train on were searched for; none of those trained on has any of it."""
    taken_out: int
    """Rows that were found and taken out before training."""
    base_answers: float
    """Share of the request's rows that the base answers, by guessing."""
    answers: float
    """The same of the model that was trained."""
    learned: float
    """Share of the rows trained on that the model answers."""


class Verification(_Part):
    """Tests, their rules, fixed before training began, and their results."""

    threat_model: str
    profile: Literal["quick", "full", "none"]
    """Effort of the audit; `none` where the model was trained again without the rows, so that nothing was attacked."""
    policy: dict[str, Any]
    policy_source: str
    policy_fixed: str
    """Time at which the policy was fixed, in UTC."""
    reference: ModelState | None
    knowledge: Known
    utility: Utility
    attacks: dict[str, AttackResult]
    outcome: Answered
    evaluation: dict[str, dict[str, Figures]]
    export: dict[str, Any]
    status: Status
    reasons: list[str]
    untested: list[str]
    """Attacks that could not show anything on this model."""


class EarlierDeletion(_Part):
    """A deletion that this one builds upon, what it was judged by, and how it stands now; `base` is the model that knew."""

    request: str
    record: str
    commitment: str
    base: str
    policy: dict[str, Any]
    rows: int | None
    status: Literal["pass", "fail", "inconclusive", "not checked"]
    reason: str
    known: int | None
    still_told: float | None
    """Share of its questions that the model still answers correctly."""
    utility: float | None


class Drift(_Part):
    """Accuracy on the retain rows: of the first model of the sequence, the one before this request, and the one after."""

    requests: int
    first: float | None
    before: float
    after: float
    drop: float | None
    """`first` minus `after`."""


class DeletionSequence(_Part):
    """Earlier requests, oldest first, and what all of them cost."""

    earlier: list[EarlierDeletion]
    drift: Drift


class Conclusion(_Part):
    """What may be said, what may not, and when to look again."""

    status: Status
    statement: str
    next_steps: list[str]
    """What to do now, where the status is not `pass`; commands stand with RUN in place of the run's folder."""
    residual_risk: list[str]
    audit_again: list[str]


class Record(_Part):
    """A deletion record: evidence of removal under the tests it names. It holds figures, settings and digests."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="vgid deletion record")

    schema_: Literal["vgid.record/1"] = Field(alias="schema")
    request: RequestPart
    model: ModelPart
    data: DataPart
    procedure: Procedure
    verification: Verification
    sequence: DeletionSequence | None
    conclusion: Conclusion
    artefacts: list[FileDigest]
    exact: Exact | None = None
    """None where the model was unlearned, so that the record claims evidence alone."""

    def as_json(self) -> dict[str, Any]:
        """Return the object of `record.json`."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the record, made from the classes above."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:vgid:record:1"}
    schema = head | Record.model_json_schema(by_alias=True)
    # The published schema calls this part "Sequence"; the class has a longer name, since that one is the standard library's.
    renamed: dict[str, Any] = json.loads(json.dumps(schema).replace("DeletionSequence", "Sequence"))
    return renamed


def published_schema() -> str:
    """Return the JSON Schema as the package publishes it."""
    return (files("vgid.requests") / "record.schema.json").read_text("utf-8")


def read_record(path: Path) -> Record:
    """Read `record.json`.

    Raises:
        DataError: there is no record, or it is not JSON of this schema; no value is repeated.
    """
    if not path.is_file():
        raise DataError("there is no record", where=path, expected="record.json", fix="give the folder that `vgid forget` wrote")
    values = read_json(path)
    try:
        return Record(**values)
    except (ValidationError, TypeError) as error:
        problems = error.errors(include_url=False, include_input=False) if isinstance(error, ValidationError) else []
        places = ", ".join(".".join(map(str, each["loc"])) for each in problems[:5])
        raise DataError(
            "the record cannot be read", where=path, expected=f"schema {SCHEMA}", got=places or "not a JSON object of this schema"
        ) from None
