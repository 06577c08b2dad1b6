"""The results of a comparison, schema `vgid.comparison/1`: figures and settings, nothing of questions and answers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch

from vgid.comparison.bootstrap import Draws, SeedAnswers, difference, score_draws
from vgid.comparison.plan import BASE, REFERENCE
from vgid.comparison.runner import FinishedComparison
from vgid.comparison.scores import Score, pareto, score
from vgid.comparison.stored_run import Run
from vgid.evaluation.aggregates import LEAST_KNOWN
from vgid.evaluation.statistics import bootstrap_ci, percentiles
from vgid.results import versions

SCHEMA = "vgid.comparison/1"
RunsByName = Mapping[str, Sequence[Run]]
"""Runs by the name of their entry, one for each seed."""


def build_comparison(finished: FinishedComparison, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Score all runs, compare them in pairs, and build the results object.

    Args:
        finished: all runs.
        seconds: how long each stage took.

    Returns:
        The object of schema `vgid.comparison/1`, with the best method first.
    """
    plan, runs = finished.plan, _by_name(finished.runs)
    whole = {name: each for name, each in runs.items() if not any(run.failed for run in each)}
    scores = {name: _scores(each, runs) for name, each in whole.items()}
    draws = {name: score_draws(_seed_answers(each, runs)) for name, each in whole.items()}
    means = {name: _mean_score(each) for name, each in scores.items()}
    order = sorted(means, key=lambda name: -means[name]["composite"])
    named = [name for name in order if name not in (BASE, REFERENCE)]
    return {
        "schema": SCHEMA,
        "target": plan.target.name,
        "people": plan.people,
        "forget": plan.forget,
        "seeds": list(plan.seeds),
        "budget": plan.budget,
        "steps": plan.steps,
        "trials": plan.earlier.trials if plan.earlier else plan.trials,
        "tuned_on": plan.earlier.seed if plan.earlier else plan.seeds[0] if plan.trials else None,
        "scores": {
            name: {**means[name], **_intervals(draws[name]), "seeds": [_main_scores(each) for each in scores[name]]} for name in order
        },
        "failed": {name: [run.failed for run in each if run.failed] for name, each in runs.items() if name not in whole},
        "pareto": pareto({name: (means[name]["forgetting"], means[name]["utility"]) for name in named}),
        "pairs": _pairs(named, draws),
        "splits": _splits(whole, order),
        "looks": {name: [run.looks for run in each] for name, each in whole.items() if any(run.looks for run in each)},
        "curves": {name: [run.curves for run in each] for name, each in whole.items() if any(run.curves for run in each)},
        "cost": {name: _cost(each) for name, each in whole.items()},
        "configs": {name: each[0].config for name, each in runs.items() if each[0].config},
        "tuned": {name: each._asdict() for name, each in finished.tuned.items()},
        "warnings": list(_warnings(runs)),
        "versions": versions(),
        "machine": _machine(),
        "seconds": dict(seconds),
    }


def _by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    named: dict[str, list[Run]] = {}
    for run in runs:
        named.setdefault(run.name, []).append(run)
    return named


def _scores(each: Sequence[Run], runs: RunsByName) -> list[Score]:
    """Return the score of each seed, relative to that seed's base and reference."""
    seeds = zip(each, runs[BASE], runs[REFERENCE], strict=True)
    return [score(run.accuracies(), base.accuracies(), reference.accuracies()) for run, base, reference in seeds]


def _seed_answers(each: Sequence[Run], runs: RunsByName) -> list[SeedAnswers]:
    return [SeedAnswers(*(run.answers for run in three)) for three in zip(each, runs[BASE], runs[REFERENCE], strict=True)]


def _mean_score(scores: Sequence[Score]) -> dict[str, Any]:
    """Return means over seeds, also of the components by split."""
    plain = {key: fmean(getattr(each, key) for each in scores) for key in ("composite", "forgetting", "utility")}
    parts = {key: {split: fmean(getattr(s, key)[split] for s in scores) for split in getattr(scores[0], key)} for key in Score._fields[3:]}
    return {**plain, **parts}


def _intervals(draws: Draws) -> dict[str, list[float]]:
    return {f"{key}_ci": list(percentiles(values)) for key, values in draws._asdict().items()}


def _main_scores(each: Score) -> dict[str, float]:
    return {"composite": each.composite, "forgetting": each.forgetting, "utility": each.utility}


def _pairs(order: Sequence[str], draws: Mapping[str, Draws]) -> list[dict[str, Any]]:
    """Compare every pair once, the one with the better composite first."""
    pairs = []
    for one, other in combinations(order, 2):
        found = difference(draws[one], draws[other])
        pairs.append({"better": one, "than": other, "difference": found.mean, "ci": list(found.interval), "p_value": found.p_value})
    return pairs


def _splits(runs: RunsByName, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return means over seeds by split and method, with intervals that draw the people of all seeds."""
    return {split: {name: _pooled(split, runs[name]) for name in order} for split in runs[order[0]][0].figures}


def _pooled(split: str, runs: Sequence[Run]) -> dict[str, Any]:
    figures = [run.figures[split] for run in runs]
    values = [value for run in runs for value in run.answers[split].accuracy]
    people = [f"{run.seed}/{subject}" for run in runs for subject in run.answers[split].subjects]
    means = {key: fmean(each[key] for each in figures) for key in ("accuracy", "rouge_l", "probability", "refusal_rate")}
    return {"n": sum(each["n"] for each in figures), **means, "accuracy_ci": list(bootstrap_ci(values, people, seed=0))}


def _cost(runs: Sequence[Run]) -> dict[str, float]:
    return {
        "steps": fmean(run.steps for run in runs),
        "seconds": fmean(run.seconds for run in runs),
        "memory": max(run.memory for run in runs),
    }


def _warnings(runs: RunsByName) -> Sequence[str]:
    warnings = []
    for base, reference in zip(runs[BASE], runs[REFERENCE], strict=True):
        if base.accuracies()["forget"] - reference.accuracies()["forget"] < LEAST_KNOWN:
            warnings.append(f"seed {base.seed}: the model hardly knew the people to forget, so forgetting says nothing")
        nothing = [split for split, accuracy in base.accuracies().items() if not accuracy and not split.startswith("forget")]
        if nothing:
            warnings.append(f"seed {base.seed}: before unlearning nothing was known of {', '.join(nothing)}, so nothing can be lost there")
    return warnings


def _machine() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"system": platform.platform(), "device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
