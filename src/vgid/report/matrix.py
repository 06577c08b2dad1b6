"""The matrix at the top of an audit's page: what each attack recovered, what it can do at all, and the verdict, as a heat map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ACCESS = {
    "black box": "By asking the model",
    "scores": "With the likelihoods of its answers",
    "hidden states": "With its inner states",
    "weights": "With its weights",
}
"""What an attacker needs, in the order in which it is shown, each with a heading."""
MARKS = {"pass": "\u2713", "fail": "\u2715", "inconclusive": "?", "untested": "\u2013"}
"""A sign for each verdict."""


class MatrixRow(NamedTuple):
    """An attack in the matrix, with the figures of the level that decided.

    Attributes:
        name: name of the attack.
        status: `pass`, `fail`, `inconclusive`, or `untested` for an attack that says nothing about the model.
        reason: the reason for it, without the level; empty for a pass.
        required: whether the verdict depends on it.
        most: allowed share.
        share: recovered share; empty where there is none.
        heat: the share in percent of the strongest colour.
        power: what the attack gets out of the base, beyond guessing; empty where it is not known.
        strength: the power in percent of the strongest colour.
    """

    name: str
    status: str
    reason: str
    required: bool
    most: float
    share: str
    heat: int
    power: str
    strength: int


def matrix(attacks: Mapping[str, Mapping[str, Any]], untested: list[str]) -> dict[str, list[MatrixRow]]:
    """The rows of the matrix by what the attacker needs.

    Args:
        attacks: the attacks of an audit's results, schema `vgid.audit/1`.
        untested: attacks that say nothing about the model.

    Returns:
        By heading, in the order of `ACCESS`, the rows of the attacks in their order; headings without attacks are left out.
    """
    rows: dict[str, list[MatrixRow]] = {heading: [] for heading in ACCESS.values()}
    for name, attack in attacks.items():
        level = decisive(attack)
        share, power = level.get("share"), _power(level)
        rows.setdefault(ACCESS.get(attack["access"], attack["access"]), []).append(
            MatrixRow(
                name=name,
                status="untested" if name in untested else attack["status"],
                reason=(attack["reason"] or "").partition(":")[0],
                required=attack["required"],
                most=attack["most"],
                share=_number(share),
                heat=_colour(share),
                power=_number(power),
                strength=_colour(power),
            )
        )
    return {heading: each for heading, each in rows.items() if each}


def decisive(attack: Mapping[str, Any]) -> Mapping[str, Any]:
    """The level of an attack that decided: of those with the attack's status, the one with the largest share; empty without levels."""
    levels = list(attack["levels"].values())
    some = [level for level in levels if level["status"] == attack["status"]] or levels
    return max(some, key=lambda level: -2.0 if level["share"] is None else level["share"], default={})


def _power(level: Mapping[str, Any]) -> float | None:
    if "auc" in level:  # an AUC of a half is chance
        base = level["auc"].get("base")
        return None if base is None else 2 * float(base) - 1
    power = level.get("power")
    return None if power is None else float(power)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "\u2212")


def _colour(value: float | None) -> int:
    return 0 if value is None else round(100 * min(1.0, max(0.0, value)))
