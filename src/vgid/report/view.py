"""What the report shows, worked out from the results: rows of cells, tiles, points of the plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vgid.report.plots import GLYPHS, SERIES, Point
from vgid.report.words import (
    GROUPS,
    MODELS,
    OTHER_WAYS,
    Figures,
    Group,
    interval,
    model_name,
    percent,
    split_group,
    split_text,
)


class Cell(NamedTuple):
    """A model on a split. `lead` is what matters there; shares in percent for the bar."""

    lead: str
    note: str
    value: float
    low: float
    high: float
    details: tuple[tuple[str, str], ...]


class SplitRow(NamedTuple):
    """A split: its name, what it asks, its size, and a cell a model, None where it was not measured."""

    name: str
    text: str
    n: int
    cells: tuple[Cell | None, ...]


class Tile(NamedTuple):
    """A figure worth a glance: before and after, `None` without a base."""

    label: str
    before: str | None
    after: str
    note: str


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


def groups(splits: Mapping[str, Mapping[str, Figures]], models: Sequence[str]) -> list[tuple[str, list[SplitRow]]]:
    """The rows of a table with a column for each of `models`, by what is hoped for the splits."""
    rows: dict[Group, list[SplitRow]] = {group: [] for group in GROUPS}
    for name, figures in splits.items():
        n = max((each["n"] for each in figures.values()), default=0)
        cells = tuple(_cell(name, figures.get(model)) for model in models)
        rows[split_group(name)].append(SplitRow(name, split_text(name), n, cells))
    return [(GROUPS[group], each) for group, each in rows.items() if each]


def by_split(ablation: Mapping[str, Mapping[str, Figures]]) -> dict[str, dict[str, Figures]]:
    """`{variant: {split: ...}}` turned to `{split: {variant: ...}}`, the shape of the results."""
    names = dict.fromkeys(split for figures in ablation.values() for split in figures)
    return {split: {name: figures[split] for name, figures in ablation.items() if split in figures} for split in names}


def tiles(splits: Mapping[str, Mapping[str, Figures]]) -> Iterator[Tile]:
    """The figures at the top, those that were measured; of the other ways of asking, the one that leaks most."""
    measured = {name: figures for name, figures in splits.items() if "unlearned" in figures}
    others = [name for name in OTHER_WAYS if name in measured]
    leak = max(others, key=lambda name: float(measured[name]["unlearned"]["accuracy"]), default="")
    for split, label, key, remark in (
        ("forget", "About forgotten people", "accuracy", ""),
        (leak, "The same, asked otherwise", "accuracy", f"at worst, {leak}"),
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
    """What goes into the forgetting-versus-utility plot: all that was measured on both `forget` and `retain`."""
    forget, retain = splits.get("forget", {}), splits.get("retain", {})
    drawn = [_point(model_name(model), model, "o", forget[model], retain[model]) for model in MODELS if model in forget and model in retain]
    colours, markers = [name for name in SERIES if name not in MODELS], [marker for marker in GLYPHS if marker != "o"]
    for index, (name, figures) in enumerate(ablation.items()):
        if "forget" in figures and "retain" in figures:
            look = colours[index % len(colours)], markers[index % len(markers)]
            drawn.append(_point(name, *look, figures["forget"], figures["retain"]))
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


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `(dotted.name, value)`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, "none" if value is None or value == {} else str(value)
