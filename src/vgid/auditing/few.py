"""Audits of few people: facts are the units, and true values are compared with decoys (docs/audit.md, Few people)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vgid.attacks.base import Material, Outcome, fact_key
from vgid.attacks.scores import beaten
from vgid.auditing.figures import DRAWS, Share
from vgid.auditing.permutation import DIGITS, LevelTest, compare_levels, facts_needed, rank_people, smallest_p
from vgid.data.example import Example, subject_key
from vgid.evaluation.statistics import bootstrap_samples, percentiles

Level = tuple[str, str]
"""Names of an attack and of its level."""


class FactTest(NamedTuple):
    """What a permutation test says about one level of an attack.

    Attributes:
        p: probability that decoys are found as well as the true values, for a model that never knew them; 1 where nothing was tested.
        adjusted: the same for the smallest p among all levels of the audit's required attacks.
        base: p of the base; it is small where the attack has power.
        detectable: smallest share of the facts that would have been significant; None where none would.
        smallest: smallest p that these facts and decoys can reach.
        needed: number of facts that would reach the policy's level of significance; 0 where there are no other values.
    """

    p: float
    adjusted: float
    base: float
    detectable: float | None
    smallest: float
    needed: int


def is_about_few(rows: Sequence[Example], least_people: int, least_facts: int) -> bool:
    """Whether rows are about so few people that an audit must go by facts.

    Attacks that are fitted on some people score the other half of them, so twice the least number of people are needed otherwise.
    """
    return len({subject_key(row) for row in rows}) < 2 * least_people or len(rows) < least_facts


def by_fact(values: Mapping[str, float], rows: Sequence[Example]) -> dict[str, float]:
    """Mean over the rows about each fact.

    Args:
        values: values by row id; rows without one are left out.
        rows: the rows.

    Returns:
        By key of the fact (`fact_key`), in the order of its first row.
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.id in values:
            groups.setdefault(fact_key(row), []).append(values[row.id])
    return {key: sum(each) / len(each) for key, each in groups.items()}


def decoys_found(outcome: Outcome) -> float:
    """The mean score of decoys: what a model that never knew the facts gets for them. 0 without decoys."""
    scores = [score for each in outcome.decoys.values() for score in each]
    return sum(scores) / len(scores) if scores else 0.0


def fact_scores(outcome: Outcome, rows: Sequence[Example]) -> dict[str, NDArray[np.float64]]:
    """Scores `[k]` of each fact, the true value first, as means over its rows; facts without decoys are left out."""
    scores = {row.id: [outcome.forget[row.id], *outcome.decoys[row.id]] for row in rows if outcome.decoys.get(row.id)}
    values = {id: np.array(each, dtype=np.float64) for id, each in scores.items()}
    return by_fact(values, rows)  # type: ignore[arg-type, return-value]  # means of arrays


def compare_facts(
    audited: Mapping[Level, Outcome],
    base: Mapping[Level, Outcome],
    rows: Sequence[Example],
    material: Material,
    significance: float,
) -> dict[Level, FactTest]:
    """Test all levels on the same profiles of values.

    Args:
        audited: outcomes of the audited model by attack and level.
        base: outcomes of the base.
        rows: forget rows that the base answers.
        material: gives decoys and seed.
        significance: level of significance of the whole audit, in (0, 1).

    Returns:
        The tests by attack and level.
    """
    sizes = {fact_key(row): 1 + len(material.decoys[row.id]) for row in rows if material.decoys.get(row.id)}
    found = {level: fact_scores(outcome, rows) for level, outcome in audited.items()}
    tests = compare_levels(found, sizes, significance, material.seed)
    needed = facts_needed(list(sizes.values()), significance)
    out = {}
    for level, scores in found.items():
        each = tests.get(level, LevelTest(1.0, 1.0, None))
        # The base's power at one level is not a claim about all levels, so its p is not adjusted.
        theirs = compare_levels({level: fact_scores(base[level], rows)}, sizes, significance, material.seed) if level in base else {}
        power = theirs[level].p if level in theirs else 1.0
        least = smallest_p([sizes[fact] for fact in scores])
        out[level] = FactTest(each.p, each.adjusted, power, each.detectable, least, needed)
    return out


def compare_people(audited: Mapping[Level, Outcome], base: Mapping[Level, Outcome], rows: Sequence[Example]) -> dict[Level, FactTest]:
    """Test, for membership inference, whether the person stands out among others of whom the same was asked.

    Args:
        audited: outcomes of the audited model by attack and level, whose decoys are the scores of other people.
        base: outcomes of the base.
        rows: forget rows that the base answers.

    Returns:
        The tests by attack and level; p counts both sides.
    """
    ours, theirs = ({level: found for level, each in part.items() if (found := fact_scores(each, rows))} for part in (audited, base))
    tests, powers = rank_people(ours), {level: rank_people({level: each})[level].p for level, each in theirs.items()}
    people = {level: len(next(iter(each.values()))) for level, each in ours.items()}
    return {level: FactTest(each.p, each.adjusted, powers.get(level, 1.0), None, 2 / people[level], 1) for level, each in tests.items()}


def rank_share(outcome: Outcome, rows: Sequence[Example], seed: int) -> Share | None:
    """Where the person ranks among the others: 1 above all, 0 in the middle, -1 below all; the interval draws facts."""
    scores = fact_scores(outcome, rows)
    if not scores:
        return None
    table = np.stack(list(scores.values()))  # [f, k]

    def share(facts: NDArray[np.intp]) -> float:
        means = table[facts].mean(0).round(DIGITS)
        return float(2 * beaten(list(-means))[0] - 1)

    draws = np.array([share(drawn) for drawn in bootstrap_samples(list(scores), draws=DRAWS, seed=seed)])
    return Share(share(np.arange(len(table))), percentiles(draws))


def as_json(test: FactTest) -> dict[str, Any]:
    """The figures of a test for the results."""
    return dict(test._asdict())
