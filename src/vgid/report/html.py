"""The report: one HTML file that needs nothing else, and no network. Its one script sorts and filters tables; all is there without it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vgid.artifacts import write_text_atomic
from vgid.errors import DataError
from vgid.report import plots, view
from vgid.report.words import GROUPS, headline, model_name, models_of, split_group

SCHEMA = "vgid.results/1"


@dataclass(frozen=True)
class ReportExample:
    """A question and what the models said. `portrait`: a PNG file; `answers`: by `base`, `unlearned`, `retrained`."""

    split: str
    question: str
    expected: str
    answers: Mapping[str, str]
    portrait: bytes | None = None


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    Attributes:
        results: the object of `results.json`, schema `vgid.results/1`.
        title: what was done, in a few words.
        subjects: whose data was forgotten, as opaque ids.
        examples: shown as they are, so give none where forgotten data must not leave the run folder.
        curves: `(step, loss)` by name.
    """

    results: Mapping[str, Any]
    title: str
    subjects: tuple[str, ...] = ()
    examples: tuple[ReportExample, ...] = ()
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the report, whole or not at all.

    Raises:
        DataError: the results are not of schema `vgid.results/1`.
        OutputError: the file cannot be written.
    """
    write_text_atomic(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The report as text. All text in `data` is escaped.

    Raises:
        DataError: the results are not of schema `vgid.results/1`.
    """
    results = data.results
    if results.get("schema") != SCHEMA:
        raise DataError("these results cannot be shown", expected=f"schema {SCHEMA!r}", got=repr(results.get("schema")))
    splits, ablation = results["splits"], results.get("ablation") or {}
    points = view.points(splits, ablation)
    page: str = (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            results=results,
            headline=headline(splits, len(data.subjects)),
            tiles=list(view.tiles(splits)),
            models=models_of(splits),
            groups=view.groups(splits, models_of(splits)),
            points=points,
            tradeoff=Markup(plots.tradeoff(points)) if points else None,
            curves=Markup(plots.curves(data.curves)) if data.curves else None,
            curve_series=plots.curve_series,
            examples=_examples(data.examples),
            variants=list(ablation),
            ablation=view.groups(view.by_split(ablation), list(ablation)),
            longest=max((results.get("seconds") or {}).values(), default=0.0),
            settings=list(view.flatten(results.get("config") or {})),
        )
    )
    return page


def _examples(examples: Sequence[ReportExample]) -> list[tuple[str, list[ReportExample]]]:
    """Examples by group of splits, in the order of the groups."""
    grouped = {label: [example for example in examples if split_group(example.split) == group] for group, label in GROUPS.items()}
    return [(label, each) for label, each in grouped.items() if each]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


class Script(NamedTuple):
    """The pages' script, and its digest, which is all that their policy lets run."""

    text: Markup
    hash: str


@cache
def script() -> Script:
    """Read the script that every page brings."""
    text = (files("vgid.report") / "templates" / "page.js").read_text("utf-8")
    return Script(Markup(text), f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}")


@cache
def environment() -> Environment:
    """Where templates lie, and what they can use."""
    made = Environment(
        loader=PackageLoader("vgid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["script"] = script()
    made.filters.update(data_uri=_data_uri, model_name=model_name)
    return made
