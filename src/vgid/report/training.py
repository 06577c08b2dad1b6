"""Loss, recall and drift of a training run as figures, which several pages show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from vgid.curves import DRIFT, RECALL, losses, measured
from vgid.report import plots

LOSS_CAPTION = "Nats for each answer token, and other parts in their own units. Thin: every step. Thick: running mean."
RECALL_CAPTION = "Share of recorded answers that the model would give word for word, of rows that it knew before where it unlearns."
DRIFT_CAPTION = "How far the log-likelihood of an answer token has moved from that before training, in nats, on average."


class TrainingFigure(NamedTuple):
    """One figure.

    Attributes:
        title: its title.
        svg: the plot.
        legend: colour and name of each line.
        caption: what it shows.
    """

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    caption: str


def training_figures(curves: Mapping[str, Sequence[tuple[float, float]]], page: str = "") -> list[TrainingFigure]:
    """Draw what there is of loss, recall and drift.

    Args:
        curves: curves by name (`vgid.curves`).
        page: a word that no other run on the page has, where a page shows several.

    Returns:
        Up to three figures.
    """
    drawn = (
        ("Loss", losses(curves), plots.curves, LOSS_CAPTION),
        ("Recall over steps", measured(curves, RECALL), plots.recall_curves, RECALL_CAPTION),
        ("Drift from the model before", measured(curves, DRIFT), plots.drift_curves, DRIFT_CAPTION),
    )
    return [
        TrainingFigure(title, Markup(plot(lines, page)), [(plots.curve_series(n), name) for n, name in enumerate(lines)], caption)
        for title, lines, plot, caption in drawn
        if any(lines.values())
    ]


class SmallFigure(NamedTuple):
    """The curves of one method or setting beside those of others, one line for each seed.

    Attributes:
        name: name of the method or setting.
        svg: the plot.
        legend: colour and name of each line.
    """

    name: str
    svg: Markup
    legend: list[tuple[str, str]]


def small_figures(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, list[SmallFigure]]]:
    """Draw what there is of loss, recall and drift of several runs.

    Args:
        runs: for each method or setting, the curves of each seed.

    Returns:
        Titles, each with a small figure for each method or setting; none for results without curves.
    """
    kinds: tuple[tuple[str, str, Callable[[Any], Mapping[str, Any]]], ...] = (
        ("Loss", "loss", losses),
        ("Recall", "share", lambda curves: measured(curves, RECALL)),
        ("Drift from the model before", "nats a token", lambda curves: measured(curves, DRIFT)),
    )
    titled = ((title, [_small(name, seeds, y, chosen) for name, seeds in runs.items()]) for title, y, chosen in kinds)
    return [(title, drawn) for title, figures in titled if (drawn := [each for each in figures if each.legend])]


def _small(name: str, seeds: Sequence[Any], y: str, chosen: Callable[[Any], Mapping[str, Any]]) -> SmallFigure:
    found = [chosen(each) for each in seeds]
    lines = {curve: [each[curve] for each in found if curve in each] for curve in dict.fromkeys(c for each in found for c in each)}
    legend = [(plots.curve_series(n), curve) for n, curve in enumerate(lines)]
    return SmallFigure(name, Markup(plots.small_curves(name, y, lines) if lines else ""), legend)
