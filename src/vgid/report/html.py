"""The report of a run: which questions each model answers before and after unlearning, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vgid.artifacts import write_text_atomic
from vgid.outcome import FAILED, Outcome
from vgid.report import plots, view
from vgid.report.rendering import check_schema, render_template
from vgid.report.training import training_figures
from vgid.report.words import GROUPS, flatten, headline, models_of, split_group

SCHEMA = "vgid.results/1"


@dataclass(frozen=True)
class ReportExample:
    """A question and what the models answered.

    Attributes:
        split: the split it belongs to.
        question: the question.
        expected: the recorded answer.
        answers: answers by model, such as `base`, `unlearned` and `retrained`.
        portrait: a PNG file that the question is about.
    """

    split: str
    question: str
    expected: str
    answers: Mapping[str, str]
    portrait: bytes | None = None


@dataclass(frozen=True)
class ReportData:
    """The content of a report.

    Attributes:
        results: the object of `results.json`, schema `vgid.results/1`, with the `curves` of training where there was any.
        title: what was done, in a few words.
        subjects: opaque ids of the forgotten people.
        examples: shown as they are; give none where forgotten data must not leave the run's folder.
    """

    results: Mapping[str, Any]
    title: str
    subjects: tuple[str, ...] = ()
    examples: tuple[ReportExample, ...] = ()


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the report, whole or not at all.

    Raises:
        DataError: the results are not of schema `vgid.results/1`.
        OutputError: the file cannot be written.
    """
    write_text_atomic(path, render_report(data))


def render_report(data: ReportData) -> str:
    """Render the report; all text in `data` is escaped.

    Raises:
        DataError: the results are not of schema `vgid.results/1`.
    """
    results = data.results
    check_schema(results, SCHEMA)
    splits, ablation = results["splits"], results.get("ablation") or {}
    points = view.points(splits, ablation)
    outcome = Outcome(**results["outcome"]) if results.get("outcome") else None
    return render_template(
        "report.html.j2",
        data=data,
        results=results,
        headline=headline(splits, len(data.subjects)),
        outcome=outcome,
        failed=outcome is not None and outcome.status in FAILED,
        tiles=list(view.tiles(splits)),
        models=models_of(splits),
        groups=view.groups(splits, models_of(splits)),
        points=points,
        tradeoff=Markup(plots.tradeoff(points)) if points else None,
        training=training_figures(results.get("curves") or {}),
        examples=by_group(data.examples),
        variants=list(ablation),
        ablation=view.groups(view.by_split(ablation), list(ablation)),
        longest=max((results.get("seconds") or {}).values(), default=0.0),
        settings=list(flatten(results.get("config") or {})),
    )


def by_group(examples: Sequence[ReportExample]) -> list[tuple[str, list[ReportExample]]]:
    """Examples by label of their group of splits, in the order of the groups; groups without examples are left out."""
    grouped = {label: [example for example in examples if split_group(example.split) == group] for group, label in GROUPS.items()}
    return [(label, each) for label, each in grouped.items() if each]
