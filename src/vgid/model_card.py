"""The model card of a merged model: how it was made, counts of rows and figures, and nothing of the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vgid.artifacts import write_text_atomic

NAME = "README.md"
UNKNOWN_LICENCE = "The base does not state its licence here; whatever it is applies to this model too."


class CardFigure(NamedTuple):
    """One figure of the evaluation.

    Attributes:
        split: what was asked, such as `forget`.
        metric: what was measured, such as `accuracy`.
        values: value by model (`base`, `unlearned`, `retrained`).
        n: number of questions; None where it is not known.
    """

    split: str
    metric: str
    values: Mapping[str, float]
    n: int | None = None


def figures_of(splits: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[CardFigure]:
    """Return the accuracies of a results object's splits (schema `vgid.results/1`)."""
    return [
        CardFigure(split, "accuracy", {name: each["accuracy"] for name, each in models.items()}, max(each["n"] for each in models.values()))
        for split, models in splits.items()
        if models
    ]


def write_card(
    folder: Path,
    base: str,
    method: str,
    figures: Sequence[CardFigure],
    *,
    rows: Mapping[str, int],
    text: str | None = None,
) -> None:
    """Write the card of a merged model, with the metadata that the hub reads.

    Args:
        folder: the merged model's folder.
        base: folder or hub id of the model before; a folder's path is not repeated.
        method: name of the method that made the model.
        figures: what was measured; those of the model `unlearned` become the hub's model index.
        rows: number of rows by set, such as `forget` and `retain`.
        text: the card's text; None writes one from the other arguments.

    Raises:
        OutputError: it cannot be written.
    """
    from huggingface_hub import EvalResult, ModelCardData

    measured = [figure for figure in figures if "unlearned" in figure.values]
    licence = _licence(folder, base)
    metadata = ModelCardData(
        base_model=None if Path(base).exists() else base,  # a local path is nobody else's business
        base_model_relation=None if Path(base).exists() else "finetune",
        license=licence,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["vgid", "unlearning"],
        model_name="A model after unlearning" if measured else None,
        eval_results=[
            EvalResult(
                task_type="image-text-to-text",
                dataset_type="private",
                dataset_name=figure.split,
                dataset_split=figure.split,  # the hub's library joins figures by it, and not by the name
                metric_type=figure.metric,
                metric_value=round(figure.values["unlearned"], 4),
            )
            for figure in measured
        ]
        or None,
    ).to_yaml()
    body = text if text is not None else "\n".join(["# A model after unlearning", "", _made(method, rows), "", *_table(figures)])
    note = "" if licence else f"\n{UNKNOWN_LICENCE}\n"
    write_text_atomic(folder / NAME, f"---\n{metadata}\n---\n\n{body.rstrip()}\n{note}")


def _made(method: str, rows: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count} {name.replace('_', ' ')} rows" for name, count in rows.items())
    return (
        f"This checkpoint was made from another by unlearning ({method}, with vgid)"
        + (f", with {counts}" if counts else "")
        + ". This card does not say whom or what it was to forget."
    )


def _table(figures: Sequence[CardFigure]) -> list[str]:
    if not figures:
        return ["Its answers were not measured in the run that wrote it."]
    models = list(dict.fromkeys(model for figure in figures for model in figure.values))
    return [
        "| questions | measured | n | " + " | ".join(models) + " |",
        "|---|---|---|" + "---|" * len(models),
        *(
            f"| {each.split} | {each.metric} | {each.n or ''} | "
            + " | ".join(f"{each.values[model]:.3f}" if model in each.values else "" for model in models)
            + " |"
            for each in figures
        ),
        "",
    ]


def _licence(folder: Path, base: str) -> str | None:
    """The licence that the base's own card states, where the base is a folder with one."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    card = Path(base) / NAME
    if not card.is_file() or card.resolve() == (folder / NAME).resolve():
        return None
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (OSError, ValueError, YAMLError):  # a card without metadata, or not one at all
        return None
    return found if isinstance(found, str) else None
