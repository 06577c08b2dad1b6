"""Shared by CLEAR and FIUBench: answers compared with reworded and perturbed ones, model utility, and forget quality.

The figures are those of TOFU (arXiv 2401.06121). An item's candidates are the recorded answer, a reworded one, then perturbed ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from vgid.benchmarks.base import Answer, Answered, Figure, Item, Metric, by_task, is_forget_split
from vgid.errors import DataError
from vgid.evaluation import aggregates
from vgid.evaluation.metrics import probability
from vgid.evaluation.overlap import rouge
from vgid.evaluation.statistics import GroupedValues, combined_ci
from vgid.evaluation.truth import (
    forget_truth,
    harmonic_mean,
    log_truth_ratio,
    nearness,
    option_probability,
    released_log_truth_ratios,
    retain_truth,
)

Averaging = Literal["per_question", "released"]
"""Which perturbed answers a truth ratio averages over: those of its question, as in the papers, or those of all questions of a task, as in
CLEAR's released script."""
UTILITY_METRICS = ("rougeL_recall", "probability", "truth_ratio")
"""Model utility is the harmonic mean of these metrics' means."""
METRICS: dict[str, Metric] = {
    "rouge1_recall": Metric("up", "ROUGE-1 recall with stemmer"),
    "rougeL_recall": Metric("up", "ROUGE-L recall with stemmer"),
    "probability": Metric(
        "up", "probability of the recorded answer, geometric mean over tokens; among options where there are some", likelihood=True
    ),
    "truth_ratio": Metric(
        "up", "retained: max(0, 1 - 1/r); to be forgotten: min(r, 1/r), where more is more forgotten", "up", likelihood=True
    ),
    "model_utility": Metric("up", "harmonic mean of ROUGE-L recall, probability and truth ratio over the sets to be kept", likelihood=True),
    "forget_quality": Metric("none", "p-value of a KS test of truth ratios against a model that never saw the forget set", likelihood=True),
    "ks_statistic": Metric("none", "that test's statistic: 0 for equal distributions", likelihood=True),
    "js_distance": Metric("none", "Jensen-Shannon distance of the same: 0 for equal distributions", likelihood=True),
    "open_fq": Metric(
        "none",
        "forget quality of arXiv 2610.10358: mean of 1 - ROUGE-L recall, truth ratio, 1 - probability, 1 - KS, 1 - JS; a model that knows "
        "everything and one that knows nothing can score alike, so compare it with the base and with the retrained reference",
        likelihood=True,
    ),
}


def measure_answer(item: Item, answer: Answer, *, among_options: bool) -> dict[str, float]:
    """Return ROUGE recall, probability and truth ratio of one answer.

    Args:
        item: the question.
        answer: the model's answer, with the losses of all candidates.
        among_options: whether the probability is that among the recorded and the perturbed answers, not that of the recorded one alone.

    Returns:
        The metrics by name, each in [0, 1].
    """
    recorded, reworded, *perturbed = answer.losses
    overlap, ratio = rouge(answer.said, item.example.answer), log_truth_ratio(reworded, perturbed)
    return {
        "rouge1_recall": overlap["rouge1"].recall,
        "rougeL_recall": overlap["rougeL"].recall,
        "probability": option_probability(recorded, perturbed) if among_options else probability(recorded),
        "truth_ratio": _truth_score(item.split, ratio),
    }


def _truth_score(split: str, log_ratio: float) -> float:
    return forget_truth(log_ratio) if is_forget_split(split) else retain_truth(log_ratio)


def log_truth_ratios(answered: Sequence[Answered], averaging: Averaging) -> list[float]:
    """Return the log truth ratio of each answer to one task."""
    reworded = [each.answer.losses[1] for each in answered]
    perturbed = [each.answer.losses[2:] for each in answered]
    if averaging == "released":
        return released_log_truth_ratios(reworded, perturbed)
    return [log_truth_ratio(good, bad) for good, bad in zip(reworded, perturbed, strict=True)]


def measure_task(answered: Sequence[Answered], averaging: Averaging, *, among_options: bool) -> list[Mapping[str, float]]:
    """Return the metrics of each answer to one task.

    Args:
        answered: the answers.
        averaging: which perturbed answers a truth ratio averages over.
        among_options: as `measure_answer` takes it.

    Returns:
        For each answer its metrics by name, each in [0, 1].
    """
    measured = [measure_answer(*each, among_options=among_options) for each in answered]
    ratios = log_truth_ratios(answered, averaging)
    return [
        one | {"truth_ratio": _truth_score(each.item.split, ratio)} for one, each, ratio in zip(measured, answered, ratios, strict=True)
    ]


def utility_figure(measured: Mapping[tuple[str, str], Sequence[Mapping[str, float]]], answered: Sequence[Answered], seed: int) -> Figure:
    """Return the model utility of TOFU: the harmonic mean of the means of `UTILITY_METRICS` over tasks.

    Args:
        measured: metrics of each answer, by the (split, task) pairs to include.
        answered: all answers of the model.
        seed: random seed of the interval, which draws people within each split.
    """
    groups = by_task(answered)
    parts = [
        GroupedValues([row[metric] for row in rows], [each.subject for each in groups[key]], key[0])
        for key, rows in measured.items()
        for metric in UTILITY_METRICS
    ]
    value, interval = combined_ci(parts, harmonic_mean, seed=seed)
    return Figure("retain", "all", "model_utility", value, *interval, sum(map(len, measured.values())))


def forget_quality_figures(
    model: Sequence[Answered], reference: Sequence[Answered] | None, split: str, task: str, averaging: Averaging, seed: int
) -> list[Figure]:
    """Compare the truth ratios of one task with those of a model that never saw the forget set: KS test and Jensen-Shannon distance.

    Args:
        model: the model's answers.
        reference: the reference model's answers.
        split: the split to compare on.
        task: the task to compare on.
        averaging: which perturbed answers a truth ratio averages over.
        seed: random seed of the intervals.

    Returns:
        The figures `forget_quality`, `ks_statistic`, `js_distance` and `open_fq`.

    Raises:
        DataError: there is no reference, or it was asked different questions.
    """
    own = by_task(model)[split, task]
    other = None if reference is None else by_task(reference).get((split, task), [])
    if other is not None and [each.item.key for each in own] != [each.item.key for each in other]:
        raise DataError("the reference was asked different questions", expected=f"{len(own)} answers to the same", got=f"{len(other)}")
    people = [each.subject for each in own]
    ratios = None if other is None else log_truth_ratios(other, averaging)
    near = nearness(log_truth_ratios(own, averaging), ratios, people, seed=seed)
    measured, n = measure_task(own, averaging, among_options=False), len(own)
    overlap, ratio, likely = (fmean(one[metric] for one in measured) for metric in ("rougeL_recall", "truth_ratio", "probability"))
    return [
        Figure(split, task, "forget_quality", near.p_value, None, None, n),
        Figure(split, task, "ks_statistic", near.ks, *near.ks_interval, n),
        Figure(split, task, "js_distance", near.js, *near.js_interval, n),
        Figure(split, task, "open_fq", aggregates.forget_quality(1 - overlap, ratio, likely, near.ks, near.js), None, None, n),
    ]
