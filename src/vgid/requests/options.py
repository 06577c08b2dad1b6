"""What a user asks for when a request is to be honoured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vgid.auditing.policy import Policy, Profile
from vgid.config import RunConfig
from vgid.enrichment import Kind


@dataclass(frozen=True)
class ForgetOptions:
    """The options of `vgid forget`; nothing that they name has been read.

    Attributes:
        model: folder or hub id of the model that must forget; None with `after`.
        request: the request folder.
        out: the run's folder.
        config: settings of unlearning.
        retain: rows to keep; None takes neutral rows.
        reference: folder or hub id of a model that never saw the rows.
        policy: YAML file of the audit's thresholds, or the policy itself; None takes the package's own.
        profile: effort of the audit's attacks.
        max_rows: rows to ask at most, in the preflight (None: 32), in the evaluation (None: 200) and in the audit (None: the profile's).
        after: folder of an earlier run, whose model this run starts from.
        continued: folder of a run of the same request that did not end in a pass; unlearning goes on from its result.
        earlier: request folders of earlier runs, where they have moved.
        allow_unknown: go on although the model does not know the rows.
        key: file with the run's secret key; None takes one beside the run's folder, which is made where there is none.
        overwrite: replace what an earlier run left in `out`.
        without: kinds of derived rows that are not made.
        show_forgotten: let the preflight show the text of a row on the screen.
    """

    model: str | None
    request: Path
    out: Path
    config: RunConfig
    retain: Path | None = None
    reference: str | None = None
    policy: Path | Policy | None = None
    profile: Profile = "quick"
    max_rows: int | None = None
    after: Path | None = None
    continued: Path | None = None
    earlier: tuple[Path, ...] = ()
    allow_unknown: bool = False
    key: Path | None = None
    overwrite: bool = False
    without: tuple[Kind, ...] = ()
    show_forgotten: bool = False
