"""From what metrics say about models of which it is known what they know, to faithfulness and robustness: pure functions over numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vgid.auditing.figures import auc
from vgid.evaluation.statistics import percentiles
from vgid.evaluation.truth import harmonic_mean
from vgid.experiments.pools import Role
from vgid.metrics import METRICS

CHANGES = ("relearned", "rounded", "prefix", "sampled")
"""What is done to an unlearned model or to how it is asked: trained on rows about half of the forgotten people and asked about the others;
rounded to 4 bits; asked behind a sentence that lifts earlier instructions; answers drawn at temperature 0.8 in place of the likeliest."""
LEAST_GAP = 0.1
"""Least distance of a metric's means over models that know and that never knew, as a share of its range, for robustness to be given;
chosen by hand."""
DRAWS = 500
"""Bootstrap draws of the intervals over people."""
TRUSTED = 0.9
"""Least faithfulness, sight of shams and robustness of a metric that is called trustworthy; chosen by hand."""
KNOWS: tuple[Role, ...] = ("knows",)
NEVER: tuple[Role, ...] = ("never knew",)
Values = Mapping[str, Sequence[float | None]]
"""By metric, a value for each forget row in their order; None where the metric does not apply to the row."""


def summarise(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn what was measured into faithfulness and robustness.

    Args:
        seeds: for each seed `people`, the person of each row; `scored`, whether a row is asked after relearning; and `models`: by name
            the `role` and the `readings`, which are `Values` by change, with `plain` for none.

    Returns:
        The part of the results object that depends on values alone.
    """
    named = dict.fromkeys(name for seed in seeds for model in seed["models"].values() for name in model["readings"]["plain"])
    figures = {name: _figures(name, seeds) for name in named}
    roles: dict[str, int] = {}
    for seed in seeds:
        for model in seed["models"].values():
            roles[model["role"]] = roles.get(model["role"], 0) + 1
    order = sorted(figures, key=lambda name: (figures[name]["score"] is None, -(figures[name]["score"] or 0), name))
    return {
        "models": roles,
        "people": sum(len(set(seed["people"])) for seed in seeds),
        "rows": sum(len(seed["people"]) for seed in seeds),
        "metrics": {name: figures[name] for name in order},
        "trusted": [name for name in order if figures[name]["trusted"]],
        "limits": {"trusted": TRUSTED, "least_gap": LEAST_GAP},
    }


def _figures(name: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The line of one metric or attack."""
    measures = METRICS.get(name).measures if name in METRICS else "attack"
    positive: tuple[Role, ...] = {"rebound": ("sham",), "text": ("collapsed",)}.get(measures, KNOWS)  # type: ignore[assignment]
    negative: tuple[Role, ...] = ("never knew", "knows", "unlearned", "sham") if measures == "text" else NEVER
    faithful, interval, models = _separation(name, seeds, positive, negative)
    hidden, hidden_interval, _ = (
        _separation(name, seeds, ("sham",), NEVER) if measures in ("knowledge", "membership", "attack") else (None, None, None)
    )
    changes = {
        change: _robustness(name, seeds, change) if measures in ("knowledge", "membership", "attack") else None for change in CHANGES
    }
    known = [value for value in changes.values() if value is not None]
    robust = harmonic_mean(known) if known else None
    score = harmonic_mean([faithful, robust]) if faithful is not None and robust is not None else None
    return {
        "measures": measures,
        "values": {role: _mean(name, seeds, role) for role in ("knows", "never knew", "unlearned", "sham", "collapsed")},
        "faithfulness": faithful,
        "interval": interval,
        "models": models,
        "shams": hidden,
        "shams_interval": hidden_interval,
        "robustness": changes,
        "robust": robust,
        "score": score,
        "trusted": all(value is not None and value >= TRUSTED for value in (faithful, hidden, robust)),
    }


def _separation(
    name: str, seeds: Sequence[Mapping[str, Any]], positive: Sequence[Role], negative: Sequence[Role]
) -> tuple[float | None, list[float] | None, float | None]:
    """AUC of people in models of some roles against people in models of others, its 95 % interval over people, and the AUC of models."""
    parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []  # by seed, [model, person] of both sides
    for seed in seeds:
        sides = []
        for roles in (positive, negative):
            rows = [_by_person(values, seed["people"]) for values in _plain(name, seed, roles)]
            sides.append(np.array(rows or [[]], dtype=np.float64))
        # A person of whom no row was measured in some model is left out.
        if all(side.size for side in sides):
            whole = ~(np.isnan(sides[0]).any(0) | np.isnan(sides[1]).any(0))
            parts += [(sides[0][:, whole], sides[1][:, whole])] if whole.any() else []
    if not parts:
        return None, None, None

    def areas(drawn: Callable[[int, int], NDArray[np.intp]]) -> float:
        return fmean(
            auc(ours[:, drawn(k, ours.shape[1])].ravel(), theirs[:, drawn(k, ours.shape[1])].ravel())
            for k, (ours, theirs) in enumerate(parts)
        )

    value = areas(lambda _, people: np.arange(people))
    rng = np.random.default_rng(0)
    draws = np.empty(DRAWS)
    for number in range(DRAWS):
        chosen = [rng.integers(ours.shape[1], size=ours.shape[1]) for ours, _ in parts]
        draws[number] = areas(lambda k, _, chosen=chosen: chosen[k])  # type: ignore[misc]
    return value, list(percentiles(draws)), fmean(auc(ours.mean(1), theirs.mean(1)) for ours, theirs in parts)


def _plain(name: str, seed: Mapping[str, Any], roles: Sequence[Role]) -> Iterator[Sequence[float | None]]:
    """The values of a metric in each model of some roles, as the models are."""
    for model in seed["models"].values():
        if model["role"] in roles and name in model["readings"]["plain"]:
            yield model["readings"]["plain"][name]


def _by_person(values: Sequence[float | None], people: Sequence[str]) -> list[float]:
    """The mean of each person's rows, in the order of their names; NaN without one."""
    rows: dict[str, list[float]] = {person: [] for person in sorted(set(people))}
    for value, person in zip(values, people, strict=True):
        if value is not None:
            rows[person].append(value)
    return [fmean(each) if each else float("nan") for each in rows.values()]


def _mean(name: str, seeds: Sequence[Mapping[str, Any]], role: Role) -> float | None:
    """The mean of a metric over all rows of all models of a role."""
    values = [value for seed in seeds for each in _plain(name, seed, (role,)) for value in each if value is not None]
    return fmean(values) if values else None


def _robustness(name: str, seeds: Sequence[Mapping[str, Any]], change: str) -> float | None:
    """1 minus how much more a metric rises under a change in unlearned models and shams than in one that never knew.

    The unit is the distance of the means of models that know and that never knew, on the same rows. A metric that has seen through a sham
    has nothing to rise to. Rises are clipped to [0, 1], and averaged over the models of all seeds.
    """
    excess: list[float] = []
    for seed in seeds:
        after = {model: each["readings"][change] for model, each in seed["models"].items() if change in each["readings"]}
        changed = {model: each[name] for model, each in after.items() if name in each}
        usable = [place for place, kept in enumerate(seed["scored"]) if kept] if change == "relearned" else range(len(seed["people"]))
        before = [seed["models"][model]["readings"]["plain"][name] for model in changed]
        knows, never = (list(_plain(name, seed, roles)) for roles in (KNOWS, NEVER))
        places = [k for k in usable if all(each[k] is not None for each in (*changed.values(), *before, *knows, *never))]
        control = next((model for model in changed if seed["models"][model]["role"] == "never knew"), None)
        if control is None or not places:
            continue

        def mean(values: Sequence[float | None], places: Sequence[int] = places) -> float:
            return fmean(value for k in places if (value := values[k]) is not None)

        # On few rows a metric that says nothing may differ by chance: the distance over all rows counts too.
        every = [k for k in range(len(seed["people"])) if all(each[k] is not None for each in (*knows, *never))]
        high, low = fmean(map(mean, knows)), fmean(map(mean, never))
        distance = min(high - low, fmean(mean(each, every) for each in knows) - fmean(mean(each, every) for each in never))
        if distance < LEAST_GAP * (METRICS.get(name).scale if name in METRICS else 1):
            continue

        def rise(model: str, gap: float = high - low) -> float:
            return (mean(changed[model]) - mean(seed["models"][model]["readings"]["plain"][name])) / gap  # noqa: B023

        excess += [float(np.clip(rise(model) - rise(control), 0, 1)) for model in changed if model != control]
    return 1 - fmean(excess) if excess else None
