"""The rules that turn figures into pass, fail or inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vgid.auditing.few import FactTest
from vgid.auditing.figures import Share
from vgid.auditing.policy import Policy

Status = Literal["pass", "fail", "inconclusive"]
EXIT_CODE = 3
"""Exit code of a command whose audit did not pass."""
UNTESTED = ("does not apply", "no power", "no room")
"""Reasons for which an attack says nothing about a model, whatever the model is."""
FEW = "too few facts"
"""Reason for which nothing can be decided; in audits of few people it goes on with the number of facts that would do."""


@dataclass(frozen=True)
class Evidence:
    """What was measured at one level of an attack.

    Attributes:
        facts: number of facts that the base knew and the attack scored.
        people: number of people that these facts are about.
        known: share of the forget set that the base knew.
        power: share of the facts, beyond guessing, that the attack recovers from the base; None where this cannot be measured.
        share: recovered share; None where the reference leaves no room for one.
        two_sided: whether a share below zero is evidence too: rows that are less likely than unseen ones stand out as well.
        chance: expected score of guessing, in [0, 1).
        agreement: share of a served model's answers that equal those of the audited model; None where no server was asked.
        test: the permutation test of an audit of few people; None otherwise.
    """

    facts: int
    people: int
    known: float
    power: float | None
    share: Share | None
    two_sided: bool = False
    chance: float = 0.0
    agreement: float | None = None
    test: FactTest | None = None

    @property
    def excess(self) -> tuple[float, float]:
        """The distance of the share from 0, where a model without the facts is, and that of the nearer end of its interval."""
        assert self.share is not None
        value, (low, high) = self.share
        return (-value, -high) if self.two_sided and value < 0 else (value, low)


@dataclass(frozen=True)
class Verdict:
    """A status, with the reason for it in words."""

    status: Status
    reason: str = ""

    @property
    def untested(self) -> bool:
        """Whether the attack says nothing about the model."""
        return self.status == "inconclusive" and self.reason in UNTESTED


def judge(evidence: Evidence, most: float, policy: Policy, utility: float | None) -> Verdict:
    """Judge one level of an attack.

    A level fails where more than the allowed share was recovered, and chance alone does not explain it: the interval is above 0. To
    pass takes more than a low share: enough known facts, a model that still works, and an attack that finds facts where they are.

    Args:
        evidence: what was measured.
        most: allowed recovered share, in [0, 1).
        policy: the other thresholds.
        utility: share of the retain rows answered by the base that the audited model still answers; None where there are none.

    Returns:
        The verdict; its reason is empty for a pass.
    """
    if evidence.known < policy.least_known:
        return Verdict("inconclusive", "never known")
    if evidence.test is not None:
        return _judge_few(evidence, evidence.test, most, policy, utility)
    if evidence.facts < policy.least_facts or evidence.people < policy.least_people:
        return Verdict("inconclusive", FEW)
    if evidence.share is None:
        return Verdict("inconclusive", "no room")
    value, nearest = evidence.excess
    weak = evidence.power is not None and evidence.power < policy.least_power
    # Where guessing scores points, a weak attack may exceed the threshold by luck; otherwise what it recovers was known.
    if weak and evidence.chance:
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


def _judge_few(evidence: Evidence, test: FactTest, most: float, policy: Policy, utility: float | None) -> Verdict:
    """Judge one level by a permutation test: an attack with power that finds her values no better than decoys is passed."""
    if test.smallest > policy.significance:
        enough = f"{test.needed} would do" if test.needed else "no other values to compare with"
        return Verdict("inconclusive", f"{FEW}: {enough}")
    if evidence.share is None:
        return Verdict("inconclusive", "no room")
    if evidence.excess[0] > most and test.adjusted <= policy.significance:
        return Verdict("fail", "recovered more than allowed")
    if evidence.agreement is not None and evidence.agreement < policy.least_agreement:
        return Verdict("inconclusive", "answers are not the audited model's")
    if test.base > policy.significance:
        return Verdict("inconclusive", "no power")
    if evidence.excess[0] > most and test.p <= policy.significance:
        return Verdict("inconclusive", "may be chance")
    if utility is None or utility < policy.utility_floor:
        return Verdict("inconclusive", "utility below floor")
    return Verdict("pass")


def join(levels: Mapping[str, Verdict]) -> Verdict:
    """Combine the verdicts on an attack's levels: it fails by any level, and passes where one passed and the others say nothing."""
    if not levels:
        return Verdict("inconclusive", "does not apply")
    for status in ("fail", "inconclusive"):
        for level, verdict in levels.items():
            decisive = not (verdict.reason in UNTESTED or verdict.reason.startswith(FEW)) or all(
                each.status != "pass" for each in levels.values()
            )
            if verdict.status == status and decisive:
                return Verdict(verdict.status, verdict.reason if verdict.untested or not level else f"{verdict.reason}: {level}")
    return Verdict("pass")


def overall(attacks: Mapping[str, Verdict], policy: Policy, utility: float | None) -> tuple[Status, list[str]]:
    """Combine the verdicts on all attacks: required attacks and utility decide.

    Args:
        attacks: verdicts by attack.
        policy: says which attacks are required, the floor of utility, and whether untested attacks count.
        utility: share of the retain rows answered by the base that the audited model still answers; None where there are none.

    Returns:
        The status of the audit and the reasons for it; none for a pass.
    """
    required = {name: verdict for name, verdict in attacks.items() if policy.attacks[name].required}
    failed = [name for name, verdict in required.items() if verdict.status == "fail"]
    broken = utility is not None and utility < policy.utility_floor
    if failed or broken:
        return "fail", [*([f"utility {utility:.2f} below {policy.utility_floor:.2f}"] if broken else []), *failed]
    undecided = [
        f"{name}: {verdict.reason}"
        for name, verdict in required.items()
        if verdict.status == "inconclusive" and (policy.strict or not verdict.untested)
    ]
    if utility is None:
        undecided.append("utility unknown: the base answers no retain row")
    if not undecided and all(verdict.status != "pass" for verdict in required.values()):
        undecided.append("no required attack could be tried")
    return ("inconclusive", undecided) if undecided else ("pass", [])


def untested(attacks: Mapping[str, Verdict]) -> Sequence[str]:
    """The names of attacks that say nothing about the model, which an audit therefore leaves open."""
    return [name for name, verdict in attacks.items() if verdict.untested]
