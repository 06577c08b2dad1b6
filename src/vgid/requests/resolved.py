"""Everything that decides a run, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vgid.auditing.policy import Policy, Profile, load_policy
from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.data.sources import check_disjoint, load_examples, rows_of
from vgid.errors import ConfigError, DataError
from vgid.requests.earlier import Chain, read_chain
from vgid.requests.files import MERGED, WORK, digests, files_below, model_folder
from vgid.requests.keys import Key
from vgid.requests.request import Demand, read_demand

NEUTRAL_ROWS = 256
"""Neutral rows that stand in for a retain set, where the recipe does not say."""


@dataclass(frozen=True)
class Order:
    """What a user asked for.

    Attributes:
        model: folder or hub id; None with `after`.
        request: the request folder.
        out: the run's folder.
        config: of unlearning.
        retain: what must stay; None for neutral rows.
        reference: a model that never saw the rows.
        policy: file of thresholds; None for the package's own.
        profile: of the audit.
        max_rows: forget rows, and retain rows, to ask at most in the preflight (None: 32), the examination (200) and the audit (the
            profile's).
        after: folder of an earlier run to build upon.
        earlier: request folders of earlier runs.
        allow_unknown: go on although the model does not know the rows.
    """

    model: str | None
    request: Path
    out: Path
    config: RunConfig
    retain: Path | None = None
    reference: str | None = None
    policy: Path | None = None
    profile: Profile = "quick"
    max_rows: int | None = None
    after: Path | None = None
    earlier: tuple[Path, ...] = ()
    allow_unknown: bool = False


@dataclass(frozen=True)
class Job:
    """An order with all that it names read: the request, earlier ones, the policy, and the models' folders."""

    order: Order
    demand: Demand
    chain: Chain
    config: RunConfig
    policy: Policy
    model: Path
    name: str
    revision: str | None
    reference: Path | None

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.order.out

    @property
    def work(self) -> Path:
        """What is removed by `vgid purge`."""
        return self.order.out / WORK

    @property
    def retain(self) -> Path:
        """The retain set: the user's, or the neutral rows once they are made."""
        return self.order.retain or self.work / "neutral" / "retain.jsonl"

    @property
    def anchors(self) -> list[Example]:
        """Rows of earlier requests that are trained on."""
        return self.chain.anchors(len(self.demand.rows), self.config.seed)

    def request_id(self, key: Key) -> str:
        """The request's own, or one made from its rows."""
        return self.demand.request.id or f"request-{key.rows(self.demand.rows)[:12]}"


def read_job(order: Order) -> Job:
    """Read everything that an order names; pictures included, models not.

    Raises:
        VgidError: something is missing, cannot be read, or contradicts something else.
    """
    if (order.model is None) == (order.after is None):
        raise ConfigError(
            "a run starts from one model",
            expected="--model, or --after with an earlier run's folder",
            got="both" if order.model else "neither",
        )
    if order.earlier and order.after is None:
        raise ConfigError("--earlier goes with --after", fix="name the earlier run's folder with --after")
    demand = read_demand(order.request)
    chain = read_chain(order.after, order.earlier) if order.after else Chain()
    if demand.request.id in {each.request for each in chain.deletions}:
        raise ConfigError("the request's id is that of an earlier one", where=order.request, fix="give every request an id of its own")
    kept = load_examples(order.retain) if order.retain else []
    check_disjoint([*demand.rows, *chain.rows], kept)
    _check_ids(demand.rows, kept)
    name = order.model or str(order.after / MERGED if order.after else "")
    model, revision = model_folder(name)
    config = order.config
    if order.retain is None and not config.neutral_retain:
        config = config.model_copy(update={"neutral_retain": NEUTRAL_ROWS})
    reference = model_folder(order.reference)[0] if order.reference else None
    return Job(order, demand, chain, config, read_policy(order.policy, demand.rows), model, name, revision, reference)


def read_policy(path: Path | None, rows: Sequence[Example]) -> Policy:
    """A policy file's policy; without one the package's, which asks for no more people than can be scored.

    Attacks that fit on some people score the others: half of those that the request names.
    """
    if path is not None:
        return load_policy(path)
    policy = load_policy(None)
    people = len({row.subject or row.id for row in rows})
    return policy.model_copy(update={"least_people": min(policy.least_people, max(1, people // 2))})


def _check_ids(forget: Iterable[Example], retain: Iterable[Example]) -> None:
    places = {row.id: row.where for row in forget}
    twice = [row for row in retain if row.id in places]
    if twice:
        raise DataError.together(
            [
                DataError(
                    "the id stands in the request too", where=row.where, got=f"also at {places[row.id]}", fix="rename it in one of them"
                )
                for row in twice
            ]
        )


def inputs(job: Job, key: Key) -> dict[str, str]:
    """A keyed digest of everything that decides the run; it goes on only where all are the same."""
    order = job.order
    files = {"model": job.model, **({"reference": job.reference} if job.reference else {})}
    values: dict[str, object] = {name: digests(folder, files_below(folder)) for name, folder in files.items()}
    values |= {
        "request": [job.demand.request.model_dump(mode="json"), key.rows(job.demand.rows)],
        "retain": key.rows(rows_of(order.retain)) if order.retain else None,
        "earlier requests": [[each.request, each.record, each.rows and key.rows(each.rows)] for each in job.chain.deletions],
        "settings": [job.config.model_dump(mode="json"), order.profile, order.max_rows, order.allow_unknown],
        "policy": job.policy.model_dump(mode="json"),
    }
    return {name: key.object("inputs", value) for name, value in values.items()}
