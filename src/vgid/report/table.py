"""Results as tables for the terminal: at most 80 columns wide, so that they stay readable when piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vgid.report.words import GROUPS, Figures, interval, model_name, models_of, split_group


def plain_table(caption: str, left: Iterable[str] = (), right: Iterable[str] = ()) -> Table:
    """Make the table that all commands print: a line below the head, no frame, a caption below.

    Args:
        caption: the caption, as rich markup.
        left: headings of columns of text, as rich markup.
        right: headings of columns of numbers, which follow them.

    Returns:
        A table without rows; further columns can be added.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def results_table(results: Mapping[str, Any]) -> Table:
    """Accuracy of every model on every split; interval, ROUGE-L and refusals of the unlearned model, or else of the first."""
    splits: Mapping[str, Mapping[str, Figures]] = results["splits"]
    models = models_of(splits)
    focus = "unlearned" if "unlearned" in models else next(iter(models), "")
    caption = f"Accuracy in %. Interval (95 %, over people), ROUGE-L and refusals: {model_name(focus).lower()}."
    names = [escape(model_name(model)) for model in models]
    table = plain_table(caption, left=("Split",), right=(*names, "Interval", "ROUGE-L", "Refuses"))
    for group in GROUPS:
        names = [name for name in splits if split_group(name) == group]
        for name in names:
            figures = splits[name]
            shares = [_percent(figures.get(model), "accuracy") for model in models]
            found = figures.get(focus)
            details = ["", "", ""] if found is None else [interval(found), f"{found['rouge_l']:.2f}", _percent(found, "refusal_rate")]
            table.add_row(escape(name), *shares, *details, end_section=name == names[-1])
    return table


def ablation_table(results: Mapping[str, Any]) -> Table | None:
    """Accuracy of every ablation on every split, with its share of refusals; None without ablations."""
    ablation: Mapping[str, Mapping[str, Figures]] = results.get("ablation") or {}
    if not ablation:
        return None
    table = plain_table("Accuracy in %, by what the teacher was given. Refuses: share of refusals.", left=("Split",))
    for name in ablation:
        table.add_column(escape(name), justify="right")
        table.add_column("Refuses", justify="right")
    splits = list(dict.fromkeys(split for figures in ablation.values() for split in figures))
    for split in splits:
        cells = [each.get(split) for each in ablation.values()]
        row = [text for cell in cells for text in (_percent(cell, "accuracy"), _percent(cell, "refusal_rate"))]
        table.add_row(escape(split), *row)
    return table


def methods_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The methods of `vgid methods`, each with its paper and what it needs."""
    table = plain_table("Numbers are arXiv's.", left=("Method", "Kind", "Paper"))
    table.add_column("Needs")
    for row in rows:
        way = {"full": ["full parameters"], "adapter": ["an adapter"]}[row["trains"][0]] if len(row["trains"]) == 1 else []
        source = [f"package {row['package']}"] if row["package"] else []
        needs = ", ".join([*row["needs"], *way, *source])
        table.add_row(escape(row["name"]), row["kind"], row["paper"] or "", escape(needs))
    return table


def recipes_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The built-in recipes: name, method and what each is for."""
    table = Table(title="Recipes: vgid unlearn --recipe NAME", title_justify="left")
    for name in ("name", "method", "for"):
        table.add_column(name, no_wrap=name != "for", overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["method"], row["about"])
    return table


def _percent(figures: Figures | None, key: str) -> str:
    return "" if figures is None else f"{100 * figures[key]:.1f}"
