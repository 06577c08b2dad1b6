"""Everything that decides a run, read and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.auditing.policy import Policy, load_policy
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import check_disjoint, load_examples, rows_of
from vgid.errors import ConfigError
from vgid.requests.files import MERGED, WORK, digests, files_below, model_folder
from vgid.requests.keys import Key
from vgid.requests.options import ForgetOptions
from vgid.requests.previous import PreviousDeletions, model_before, read_previous_deletions
from vgid.requests.request import ParsedRequest, parse_request
from vgid.unlearning import reading_options

NEUTRAL_ROWS = 256
"""Neutral rows that stand in for a retain set where the recipe does not set a number; chosen by hand."""


@dataclass(frozen=True)
class ResolvedRun:
    """Options with everything they name read; models are found, but not loaded.

    Attributes:
        options: what the user asked for.
        request: the rows to forget, and what `request.yaml` states.
        previous: deletions that earlier runs made in the model.
        config: settings of unlearning, neutral rows included.
        policy: thresholds of the audit.
        model: folder of the model that must forget.
        name: its folder or hub id as the user gave it.
        revision: its revision on the hub; None for a folder.
        reference: folder of a model that never saw the rows.
    """

    options: ForgetOptions
    request: ParsedRequest
    previous: PreviousDeletions
    config: RunConfig
    policy: Policy
    model: Path
    name: str
    revision: str | None
    reference: Path | None

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.options.out

    @property
    def start(self) -> Path:
        """The folder of the model that is trained: the one that must forget, or the result of the run that is continued."""
        return self.options.continued / MERGED if self.options.continued else self.model

    @property
    def work(self) -> Path:
        """The folder of what is needed only while the run lasts; `vgid purge` removes it."""
        return self.options.out / WORK

    @property
    def retain(self) -> Path:
        """The retain set: the user's, or the neutral rows that the run makes."""
        return self.options.retain or self.work / "neutral" / "retain.jsonl"

    @property
    def reading(self) -> dict[str, Any]:
        """How the retain set is read: a user's as the settings say, neutral rows as the run wrote them."""
        return reading_options(self.config, False) if self.options.retain else {}

    def read_retain(self, at_most: int | None = None) -> list[Example]:
        """Read the retain set.

        Args:
            at_most: rows to draw by the run's seed; None for all.
        """
        return rows_of(self.retain, at_most=at_most, seed=self.config.seed, **self.reading)

    @property
    def enriched(self) -> Path:
        """The folder of rows that were made from the request's own."""
        return self.work / "enriched"

    @property
    def rows(self) -> list[Example]:
        """What must be forgotten: the request's rows, and what the model was found to say of bare pictures and names."""
        return [*self.request.rows, *(row for row in self.derived("forget") if row.derived and row.derived.kind == "facts")]

    def derived(self, name: str) -> list[Example]:
        """Return rows that the step `enrich` made.

        Args:
            name: `forget`, `held_out`, `retain`; and of rows outside the scope `kept`, `kept_held_out`.
        """
        path = self.enriched / f"{name}.jsonl"
        return [row for row in load_examples(path) if row.derived] if path.is_file() else []

    @property
    def kept(self) -> list[Example]:
        """Rows outside the scope, and rows derived from them, which are retained."""
        return [*self.request.kept, *self.derived("kept")]

    @property
    def training_rows(self) -> list[Example]:
        """All rows of the forget side: what must be forgotten, rows derived from it, and those of previous deletions."""
        derived = [row for row in self.derived("forget") if row.derived and row.derived.kind != "facts"]
        return [*self.rows, *derived, *self.anchor_rows]

    @property
    def anchor_rows(self) -> list[Example]:
        """Rows of previous deletions that are trained on beside the new rows."""
        return self.previous.anchor_rows(len(self.rows), self.config.seed)

    def request_id(self, key: Key) -> str:
        """Return the id that `request.yaml` states, or one made from the rows."""
        return self.request.id_by(key)


def resolve_run(options: ForgetOptions) -> ResolvedRun:
    """Read and check everything that the options name, pictures included; models are not loaded.

    Raises:
        ConfigError: options contradict each other, or the policy is not valid.
        DataError: rows are bad, or a question or an id is in the request and in the retain set.
        ModelError: a model does not exist.
        RunError: the earlier run was altered.
    """
    given = [each for each in (options.model, options.after, options.continued) if each is not None]
    if len(given) != 1:
        raise ConfigError(
            "a run starts from one model",
            expected="--model, or --after or --continue with an earlier run's folder",
            got=f"{len(given)} of them",
        )
    if options.earlier and options.after is None:
        raise ConfigError("--earlier is used without --after", fix="name the earlier run's folder with --after")
    request = parse_request(options.request, options.config.data)
    previous = read_previous_deletions(options.after, options.earlier, options.config.data) if options.after else PreviousDeletions()
    if request.details.id in {each.request for each in previous.deletions}:
        raise ConfigError("an earlier request has the same id", where=options.request, fix="give every request its own id")
    retain = load_examples(options.retain, **reading_options(options.config, False)) if options.retain else []
    # By their own ids, as each earlier request is audited again by itself.
    earlier_rows = [row for each in previous.deletions for row in each.rows or ()]
    check_disjoint([*request.rows, *earlier_rows], [*retain, *request.kept])
    check_disjoint(request.kept, retain, names=("rows outside the scope", "retain set"))
    knowing = model_before(options.continued, request) if options.continued else None
    name = options.model or knowing or str(options.after / MERGED if options.after else "")
    model, revision = model_folder(name)
    config = _for_request(options.config, request)
    if options.retain is None and not config.neutral_retain:
        config = config.model_copy(update={"neutral_retain": NEUTRAL_ROWS})
    reference = model_folder(options.reference)[0] if options.reference else None
    policy = options.policy if isinstance(options.policy, Policy) else load_policy(options.policy, options.profile)
    return ResolvedRun(options, request, previous, config, policy, model, name, revision, reference)


def _for_request(config: RunConfig, request: ParsedRequest) -> RunConfig:
    """Choose the instruction by what the request is about, and by its scope, unless the settings name one; only people have names."""
    kind = "part" if request.kept else request.details.kind
    method = config.method
    if kind == "person" or getattr(method, "instruction", None) != "forget":
        return config
    update: dict[str, object] = {"instruction": kind}
    if request.details.kind != "person" and hasattr(method, "mask_names"):
        update["mask_names"] = False
    return config.model_copy(update={"method": method.model_copy(update=update)})


def input_digests(run: ResolvedRun, key: Key) -> dict[str, str]:
    """Return a keyed digest of everything that decides a run, by name; a run is continued only where all are the same.

    Args:
        run: the run.
        key: its key.

    Returns:
        HMAC-SHA256 in hexadecimal of models, request, retain set, earlier requests, settings and policy.
    """
    options = run.options
    models = {"model": run.model, "start": run.start, **({"reference": run.reference} if run.reference else {})}
    values: dict[str, object] = {name: digests(folder, files_below(folder)) for name, folder in models.items()}
    values |= {
        "request": [run.request.details.model_dump(mode="json"), key.rows(run.request.everything)],
        "retain": key.rows(run.read_retain()) if options.retain else None,
        "earlier requests": [[each.request, each.record, each.rows and key.rows(each.rows)] for each in run.previous.deletions],
        "settings": [run.config.model_dump(mode="json"), options.profile, options.max_rows, options.allow_unknown, list(options.without)],
        "policy": run.policy.model_dump(mode="json"),
    }
    return {name: key.value("inputs", value) for name, value in values.items()}
