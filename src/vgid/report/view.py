"""The content of the report of a run, computed from the results: rows of cells, tiles, points of the plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vgid.report.plots import GLYPHS, SERIES, Point
from vgid.report.words import (
    GROUPS,
    MODELS,
    OTHER_PROMPTS,
    Figures,
    Group,
    interval,
    model_name,
    percent,
    split_group,
    split_text,
)


class Cell(NamedTuple):
    """A model on a split.

    Attributes:
        lead: the figure that matters there.
        note: its interval, or what it counts.
        value: the figure in percent, for the bar.
        low: lower end of its interval, in percent.
        high: upper end of its interval, in percent.
        details: labels and values of other figures.
    """

    lead: str
    note: str
    value: float
    low: float
    high: float
    details: tuple[tuple[str, str], ...]


class SplitRow(NamedTuple):
    """A split as it is shown.

    Attributes:
        name: name of the split.
        text: what it asks, in a few words.
        n: number of questions.
        cells: a cell for each model; None where it was not measured.
    """

    name: str
    text: str
    n: int
    cells: tuple[Cell | None, ...]


class Tile(NamedTuple):
    """A figure at the top of a page.

    Attributes:
        label: what it is.
        before: its value before; None where there is none.
        after: its value after.
        note: a remark.
    """

    label: str
    before: str | None
    after: str
    note: str


def groups(splits: Mapping[str, Mapping[str, Figures]], models: Sequence[str]) -> list[tuple[str, list[SplitRow]]]:
    """The rows of a table of splits, by label of their group.

    Args:
        splits: figures by split and model.
        models: models in the order of the columns.

    Returns:
        Labels of groups with their rows; groups without splits are left out.
    """
    rows: dict[Group, list[SplitRow]] = {group: [] for group in GROUPS}
    for name, figures in splits.items():
        n = max((each["n"] for each in figures.values()), default=0)
        cells = tuple(_cell(name, figures.get(model)) for model in models)
        rows[split_group(name)].append(SplitRow(name, split_text(name), n, cells))
    return [(GROUPS[group], each) for group, each in rows.items() if each]


def _cell(split: str, figures: Figures | None) -> Cell | None:
    if figures is None:
        return None
    rouge, refused = ("ROUGE-L", f"{figures['rouge_l']:.2f}"), percent(figures["refusal_rate"])
    if split_group(split) == "strangers":
        value = 100 * figures["refusal_rate"]
        return Cell(refused, "refuses", value, value, value, (("accuracy", percent(figures["accuracy"])), rouge))
    low, high = figures["accuracy_ci"]
    bar = 100 * figures["accuracy"], 100 * low, 100 * high
    return Cell(percent(figures["accuracy"]), interval(figures), *bar, (rouge, ("refuses", refused)))


def by_split(ablation: Mapping[str, Mapping[str, Figures]]) -> dict[str, dict[str, Figures]]:
    """Turn `{variant: {split: ...}}` into `{split: {variant: ...}}`, the shape of the results."""
    names = dict.fromkeys(split for figures in ablation.values() for split in figures)
    return {split: {name: figures[split] for name, figures in ablation.items() if split in figures} for split in names}


def tiles(splits: Mapping[str, Mapping[str, Figures]]) -> Iterator[Tile]:
    """The figures at the top, as far as they were measured; of the other prompts about forgotten people, the one that leaks most."""
    measured = {name: figures for name, figures in splits.items() if "unlearned" in figures}
    others = [name for name in OTHER_PROMPTS if name in measured]
    leak = max(others, key=lambda name: float(measured[name]["unlearned"]["accuracy"]), default="")
    for split, label, key, remark in (
        ("forget", "About forgotten people", "accuracy", ""),
        (leak, "The same, asked differently", "accuracy", f"at worst, {leak}"),
        ("retain", "About everyone else", "accuracy", ""),
        ("forget_perception", "What their pictures show", "accuracy", ""),
        ("strangers", "Refusals to strangers", "refusal_rate", ""),
    ):
        if split not in measured:
            continue
        shares = {model: percent(figures[key]) for model, figures in measured[split].items()}
        reference = f"retrained {shares['retrained']}" if "retrained" in shares else ""
        note = " \u00b7 ".join(filter(None, (reference, remark)))
        yield Tile(label, shares.get("base"), shares["unlearned"], note)


def points(splits: Mapping[str, Mapping[str, Figures]], ablation: Mapping[str, Mapping[str, Figures]]) -> list[Point]:
    """The points of the plot of forgetting against utility: all that was measured on both `forget` and `retain`.

    Args:
        splits: figures by split and model.
        ablation: figures by variant and split.

    Returns:
        Models first, then variants, each with a colour and a marker.
    """
    forget, retain = splits.get("forget", {}), splits.get("retain", {})
    drawn = [_point(model_name(model), model, "o", forget[model], retain[model]) for model in MODELS if model in forget and model in retain]
    colours, markers = [name for name in SERIES if name not in MODELS], [marker for marker in GLYPHS if marker != "o"]
    for index, (name, figures) in enumerate(ablation.items()):
        if "forget" in figures and "retain" in figures:
            style = colours[index % len(colours)], markers[index % len(markers)]
            drawn.append(_point(name, *style, figures["forget"], figures["retain"]))
    return drawn


def _point(name: str, series: str, marker: str, forget: Figures, retain: Figures) -> Point:
    (low, high), kept = forget["accuracy_ci"], retain["accuracy_ci"]
    return Point(
        name,
        series,
        marker,
        x=1 - forget["accuracy"],
        y=retain["accuracy"],
        x_interval=(1 - high, 1 - low),
        y_interval=(kept[0], kept[1]),
    )
