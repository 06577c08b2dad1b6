"""Plots as inline SVG. Their colours are CSS variables, so that they follow the page between light and dark."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

SERIES = ("base", "unlearned", "retrained", "s1", "s2", "s3", "s4", "s5")
"""CSS variables for the colours of series: three models, then colours for anything else, in the order in which they are taken."""
GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "X": "✖"}
"""Markers of matplotlib, each with the character that stands for it in a legend."""

MOST_POINTS = 400
"""Points of a line that are drawn, at most."""
Lines = Mapping[str, Sequence[tuple[float, float]]]

_SIZE, _SMALL = (5.4, 3.7), (3.4, 2.3)
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Colours that nothing else uses stand for CSS values until the SVG is written.
_PLACEHOLDERS = {name: f"#0102{index:02x}" for index, name in enumerate(("ink", "muted", "line", *SERIES))}


class Point(NamedTuple):
    """A model in a plot of forgetting against utility; all numbers lie in [0, 1].

    Attributes:
        name: name of the model.
        series: name of its colour.
        marker: its marker.
        x: forgetting.
        y: utility.
        x_interval: 95 % interval of x.
        y_interval: 95 % interval of y.
    """

    name: str
    series: str
    marker: str
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]

    @property
    def glyph(self) -> str:
        """The marker as a character, for the legend."""
        return GLYPHS[self.marker]


def tradeoff(points: Sequence[Point]) -> str:
    """Plot forgetting (right is more) against utility (up is more), with 95 % intervals, as SVG."""
    figure, axes = _figure("forgotten people: share of questions not answered", "everyone else: share answered")
    for point in points:
        colour = _PLACEHOLDERS[point.series]
        bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 1.4, "alpha": 0.55}
        axes.errorbar(point.x, point.y, xerr=_reach(point.x, point.x_interval), **bars)
        axes.errorbar(point.x, point.y, yerr=_reach(point.y, point.y_interval), **bars)
        # The retrained model is drawn as a wider ring, so that it shows behind an unlearned model on the same spot.
        ring = point.series == "retrained"
        axes.plot(
            *(point.x, point.y, point.marker),
            color=colour,
            markersize=16 if ring else 9,
            markerfacecolor="none" if ring else colour,
            markeredgewidth=2 if ring else 0,
            clip_on=False,
            zorder=4 if point.series in SERIES[:3] else 3,  # models in front of ablations on the same spot
        )
    lowest = min((point.y_interval[0] for point in points), default=0.0)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(max(-0.04, min(lowest, 0.9) - 0.05), 1.02)
    axes.yaxis.set_major_locator(FixedLocator([t for t in MaxNLocator(6).tick_values(*axes.get_ylim()) if t <= 1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    alt = "; ".join(f"{p.name}: {p.x:.0%} not answered, {p.y:.0%} kept" for p in points)
    return _svg(figure, "tradeoff", f"Forgetting against utility. {alt}.")


def front(points: Sequence[Point], names: Sequence[str], least: float = 0.0) -> str:
    """Plot scores of forgetting against utility, with 95 % intervals and a Pareto front.

    Args:
        points: the methods.
        names: names of those on the front, in the order of the line.
        least: least score of the points that are drawn; the axes start there.

    Returns:
        SVG.
    """
    figure, axes = _figure("forgetting (worst way of asking)", "utility (worst of what must stay)")
    on = {point.name: (point.x, point.y) for point in points}
    points = [point for point in points if min(point.x, point.y) >= least]
    corners = [on[name] for name in names]
    if corners:
        axes.plot(*zip(*corners, strict=True), color=_PLACEHOLDERS["muted"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for point in points:
        colour = _PLACEHOLDERS[point.series]
        bars: Any = {"fmt": "none", "ecolor": colour, "elinewidth": 1.2, "alpha": 0.45}
        axes.errorbar(point.x, point.y, xerr=_reach(point.x, point.x_interval), **bars)
        axes.errorbar(point.x, point.y, yerr=_reach(point.y, point.y_interval), **bars)
        axes.plot(point.x, point.y, point.marker, color=colour, markersize=8, markeredgewidth=0, clip_on=False, zorder=3)
    for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        edge = 0.04 * (1 - least)
        limit(least - edge, 1 + edge)
        axis.set_major_locator(MaxNLocator(6))
    alt = "; ".join(f"{p.name}: {p.x:.3g} forgetting, {p.y:.3g} utility" for p in points)
    where = f", from {least:g} on" if least else ""
    alt = f"Forgetting against utility{where}. {alt}. On the front: {', '.join(names) or 'none'}."
    return _svg(figure, f"front-{round(100 * least)}", alt)


def curves(lines: Lines, page: str = "") -> str:
    """Plot losses by step, as SVG: measured values thin, their running mean thick.

    Args:
        lines: points (step, loss) by the part's name.
        page: a word that no other run on the page has, where a page shows several.
    """
    figure, axes = _figure("step", "loss")
    for index, line in enumerate(lines.values()):
        finite = [(step, value) for step, value in line if math.isfinite(value)]
        if not finite:
            continue
        steps, values = zip(*finite, strict=True)
        colour = _PLACEHOLDERS[curve_series(index)]
        window = max(1, len(values) // 20)
        if window > 1:
            axes.plot(*zip(*_thinned(finite), strict=True), color=colour, linewidth=0.8, alpha=0.3)
        mean = _thinned(list(zip(steps, running_mean(values, window), strict=True)))
        axes.plot(*zip(*mean, strict=True), color=colour, linewidth=1.9, marker="o" if len(values) < 3 else "")
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    return _svg(figure, f"curves{page}", f"Loss by training step: {', '.join(lines)}.")


def recall_curves(lines: Lines, page: str = "") -> str:
    """Plot shares of rows that are recalled (up) by step (right), as SVG, one line for each set of rows.

    Args:
        lines: points (step, share) by the set's name.
        page: as in `curves`.
    """
    figure, axes = _by_step(lines, "rows recalled")
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    alt = "; ".join(f"{name} {line[-1][1]:.0%}" for name, line in lines.items())
    return _svg(figure, f"recall-curves{page}", f"Rows recalled by training step; at the end {alt}.")


def drift_curves(lines: Lines, page: str = "") -> str:
    """Plot drift from the base in nats a token (up) by step (right), as SVG, one line for each set of rows.

    Args:
        lines: points (step, drift) by the set's name.
        page: as in `curves`.
    """
    figure, axes = _by_step(lines, "nats a token")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    alt = "; ".join(f"{name} {line[-1][1]:.2g}" for name, line in lines.items())
    return _svg(figure, f"drift-curves{page}", f"Drift from the model before by training step, in nats a token; at the end {alt}.")


def _by_step(lines: Lines, y: str) -> tuple[Figure, Axes]:
    figure, axes = _figure("step", y)
    for index, line in enumerate(lines.values()):
        colour = _PLACEHOLDERS[curve_series(index)]
        axes.plot(*zip(*_thinned(line), strict=True), color=colour, linewidth=1.9, marker="o", markersize=4, clip_on=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, axes


def _thinned(line: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """A line of at most `MOST_POINTS` points, its last one among them; more would make pages heavy and show nothing."""
    stride = -(-len(line) // MOST_POINTS)
    return line if stride <= 1 else line[::-1][::stride][::-1]


def recall(name: str, lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> str:
    """Plot the share of held-out training rows that are recalled (up) by step (right).

    Args:
        name: name of the method.
        lines: for the sides `forget` and `retain`, a line of (step, share) for each seed.

    Returns:
        SVG.
    """
    figure, axes = _figure("step", "rows recalled", _SMALL)
    for series, seeds in zip(("unlearned", "base"), lines.values(), strict=True):
        for line in seeds:
            axes.plot(*zip(*line, strict=True), color=_PLACEHOLDERS[series], linewidth=1.6, alpha=0.8, marker="o", markersize=3)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    alt = "; ".join(f"{side} {', '.join(f'{line[-1][1]:.0%}' for line in seeds)}" for side, seeds in lines.items())
    return _svg(figure, f"recall-{re.sub('[^a-z0-9]+', '-', name)}", f"Rows recalled during training with {name}; at the end {alt}.")


def small_curves(name: str, y: str, lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> str:
    """Plot curves of one method by step, small, as SVG.

    Args:
        name: name of the method.
        y: what is plotted.
        lines: by name of the curve, a line of (step, value) for each seed.
    """
    figure, axes = _figure("step", y, _SMALL)
    for index, seeds in enumerate(lines.values()):
        for line in seeds:
            axes.plot(*zip(*line, strict=True), color=_PLACEHOLDERS[curve_series(index)], linewidth=1.3, alpha=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    alt = "; ".join(f"{curve} {', '.join(f'{line[-1][1]:.3g}' for line in seeds if line)}" for curve, seeds in lines.items())
    return _svg(figure, re.sub("[^a-z0-9]+", "-", f"{y}-{name}"), f"{y} during training with {name}; at the end {alt}.")


def leakage(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Plot the share of facts recovered (up) by the share of forget rows used for fine-tuning (right), as SVG, one line for each series."""
    figure, axes = _figure("forget rows used for fine-tuning", "facts about others recovered")
    for series, line in lines.items():
        shares, rates = zip(*line, strict=True)
        axes.plot(shares, rates, color=_PLACEHOLDERS[series], linewidth=2, marker="o", markersize=6, clip_on=False)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    alt = "; ".join(f"{series}: {', '.join(f'{y:.0%} at {x:.0%}' for x, y in line)}" for series, line in lines.items())
    return _svg(figure, "leakage", f"Leakage over relearning budgets. {alt}.")


def sweep(name: str, labels: Sequence[str], lines: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """Plot shares (up) for the values of a setting, with 95 % intervals.

    Args:
        name: name of the setting.
        labels: its values; where all are numbers, they are joined by lines.
        lines: for each figure its name, and by value (share, low, high) in [0, 1].

    Returns:
        SVG with a legend.
    """
    figure, axes = _figure(name, "share")
    numeric = all(re.fullmatch(r"[\d.e+-]+", label) for label in labels)
    places = list(range(len(labels)))
    for index, (shown, line) in enumerate(lines.items()):
        values = [value for value, _, _ in line]
        reach = [[max(0.0, value - low) for value, low, _ in line], [max(0.0, high - value) for value, _, high in line]]
        colour, shift = _PLACEHOLDERS[curve_series(index)], 0.06 * (index - (len(lines) - 1) / 2)
        axes.errorbar(
            *([place + shift for place in places], values),
            yerr=reach,
            color=colour,
            marker="osD^vX"[index % 6],
            linewidth=1.6 if numeric else 0,
            elinewidth=1.2,
            label=shown,
            clip_on=False,
        )
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(places, labels, rotation=0 if numeric or len(labels) < 6 else 20)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, labelcolor=_PLACEHOLDERS["ink"], fontsize=10)
    alt = "; ".join(
        f"{shown}: {', '.join(f'{v:.0%} at {x}' for x, (v, _, _) in zip(labels, line, strict=True))}" for shown, line in lines.items()
    )
    return _svg(figure, f"sweep-{re.sub('[^a-z0-9]+', '-', name)}", f"Shares by {name}. {alt}.")


def curve_series(index: int) -> str:
    """The name of the colour of the n-th curve; grey is left to the model before unlearning."""
    return SERIES[1 + index % (len(SERIES) - 1)]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Average each value with those up to half a window before and after it; windows shrink evenly towards the ends."""
    reach = [min(window // 2, i, len(values) - 1 - i) for i in range(len(values))]
    return [math.fsum(values[i - r : i + r + 1]) / (2 * r + 1) for i, r in enumerate(reach)]


def _reach(value: float, interval: tuple[float, float]) -> list[list[float]]:
    return [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def _figure(x: str, y: str, size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(x, color=_PLACEHOLDERS["muted"])
        axes.set_ylabel(y, color=_PLACEHOLDERS["muted"])
        axes.grid(color=_PLACEHOLDERS["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_PLACEHOLDERS["line"], labelcolor=_PLACEHOLDERS["muted"])
        for spine in axes.spines.values():
            spine.set_color(_PLACEHOLDERS["line"])
    return figure, axes


def _svg(figure: Figure, name: str, alt: str) -> str:
    """Write a figure as an `<svg>` element, without metadata; its ids start with a name, so that a page can hold several."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for variable, colour in _PLACEHOLDERS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)
