"""The rules that turn figures into pass, fail or inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vgid.auditing.figures import Share
from vgid.auditing.policy import Policy

Status = Literal["pass", "fail", "inconclusive"]
EXIT_CODE = 3
"""Of a command whose audit did not pass."""
UNTESTED = ("does not apply", "no power", "no room")
"""Reasons for which an attack says nothing about the model, whatever it was."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one level of an attack.

    Attributes:
        facts: that the base knew and the attack scored.
        people: whose they are.
        known: part of the forget set that the base knew.
        power: part of these facts that the attack gets out of the base; None where it cannot be tried there.
        share: recovered; None where the reference leaves no room.
        two_sided: whether a share below zero gives as much away: rows less likely than those nobody learned are known by that.
        chance: what guessing gets.
        agreement: part of a served model's answers that are the audited model's own; None where none is served.
    """

    facts: int
    people: int
    known: float
    power: float | None
    share: Share | None
    two_sided: bool = False
    chance: float = 0.0
    agreement: float | None = None

    @property
    def excess(self) -> tuple[float, float]:
        """How far the share is from what a model that never knew gives, and the end of its interval that is nearer to that."""
        assert self.share is not None
        value, (low, high) = self.share
        return (-value, -high) if self.two_sided and value < 0 else (value, low)


@dataclass(frozen=True)
class Verdict:
    """A status, and why, in words."""

    status: Status
    reason: str = ""

    @property
    def untested(self) -> bool:
        """Whether the attack told nothing about any model."""
        return self.status == "inconclusive" and self.reason in UNTESTED


def judge(evidence: Evidence, most: float, policy: Policy, utility: float | None) -> Verdict:
    """One level: it fails when more than `most` came back and chance alone does not explain it (the interval is above 0).

    A pass asks for more than a low share: known facts, a model that still works, an attack that finds them where they are.
    """
    if evidence.known < policy.least_known:
        return Verdict("inconclusive", "never known")
    if evidence.facts < policy.least_facts or evidence.people < policy.least_people:
        return Verdict("inconclusive", "too few facts")
    if evidence.share is None:
        return Verdict("inconclusive", "no room")
    value, nearest = evidence.excess
    weak = evidence.power is not None and evidence.power < policy.least_power
    if weak and evidence.chance:  # right guesses come and go
        return Verdict("inconclusive", "no power")
    if value > most:
        if nearest > 0:
            return Verdict("fail", "recovered more than allowed")
        return Verdict("inconclusive", "interval reaches chance")
    if evidence.agreement is not None and evidence.agreement < policy.least_agreement:
        return Verdict("inconclusive", "answers are not the audited model's")
    if weak:
        return Verdict("inconclusive", "no power")
    if utility is None or utility < policy.utility_floor:
        return Verdict("inconclusive", "utility below floor")
    return Verdict("pass")


def join(levels: Mapping[str, Verdict]) -> Verdict:
    """An attack fails by any level; it passes when a level passed and the others told nothing."""
    if not levels:
        return Verdict("inconclusive", "does not apply")
    for status in ("fail", "inconclusive"):
        for level, verdict in levels.items():
            decisive = verdict.reason not in (*UNTESTED, "too few facts") or all(each.status != "pass" for each in levels.values())
            if verdict.status == status and decisive:
                return Verdict(verdict.status, verdict.reason if verdict.untested or not level else f"{verdict.reason}: {level}")
    return Verdict("pass")


def overall(attacks: Mapping[str, Verdict], policy: Policy, utility: float | None) -> tuple[Status, list[str]]:
    """The audit as a whole, and the reasons: required attacks decide, and utility."""
    required = {name: verdict for name, verdict in attacks.items() if policy.attacks[name].required}
    failed = [name for name, verdict in required.items() if verdict.status == "fail"]
    broken = utility is not None and utility < policy.utility_floor
    if failed or broken:
        return "fail", [*([f"utility {utility:.2f} below {policy.utility_floor:.2f}"] if broken else []), *failed]
    open_ = [
        f"{name}: {verdict.reason}"
        for name, verdict in required.items()
        if verdict.status == "inconclusive" and (policy.strict or not verdict.untested)
    ]
    if utility is None:
        open_.append("utility unknown: the base answers no retain row")
    if not open_ and all(verdict.status != "pass" for verdict in required.values()):
        open_.append("no required attack could be tried")
    return ("inconclusive", open_) if open_ else ("pass", [])


def untested(attacks: Mapping[str, Verdict]) -> Sequence[str]:
    """Attacks that told nothing: what an audit leaves open."""
    return [name for name, verdict in attacks.items() if verdict.untested]
