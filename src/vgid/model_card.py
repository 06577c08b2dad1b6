"""The card of a merged model or of an adapter: how it was made, counts of rows and figures, and nothing of the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vgid.artifacts import write_text_atomic
from vgid.models.checkpoints import folder_of
from vgid.models.file_checks import is_adapter

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

NAME = "README.md"
TAG = "vgid"
"""Tag of the cards that are written here."""
LICENCE = ("license", "license_name", "license_link")
"""Metadata of a licence; the last two belong to licences that the hub has no short name for."""
ADAPTER_WARNING = {
    "unlearned": "This is the adapter alone: the base still knows what it was to forget, so deploy the merged model.",
    "finetuned": "This is the adapter alone: it needs its base.",
}
"""What the card of an adapter says, by what the model after is called in results."""
TITLES = {"unlearned": "A model after unlearning", "finetuned": "A fine-tuned model"}
KINDS = {"unlearned": "unlearning", "finetuned": "fine-tuning"}
"""Tags of the cards, by the same."""
UNKNOWN_LICENCE = "The base does not state its licence here; whatever it is applies to this model too."


class CardFigure(NamedTuple):
    """One figure of the evaluation.

    Attributes:
        split: what was asked, such as `forget`.
        metric: what was measured, such as `accuracy`.
        values: value by model (`base`, `unlearned`, `finetuned`, `retrained`).
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
    after: Literal["unlearned", "finetuned"] = "unlearned",
    fine_tuned: bool = False,
    text: str | None = None,
) -> None:
    """Write the card of a merged model, or of an adapter, with the metadata that the hub reads.

    Args:
        folder: folder of the merged model, or of the adapter.
        base: folder or hub id of the model before; a folder's path is not repeated.
        method: name of the method that made the model.
        figures: what was measured; those of the model `after` become the hub's model index.
        rows: number of rows by set: `forget` and `retain`, or, after a fine-tuning, `learned` and `left_out`.
        after: what `figures` call the model that the card is about.
        fine_tuned: the base did not know the rows, and was fine-tuned on them first.
        text: the card's text; None writes one from the other arguments.

    Raises:
        OutputError: it cannot be written.
    """
    from huggingface_hub import EvalResult, ModelCardData

    measured = [figure for figure in figures if after in figure.values]
    licence, adapter = _licence(folder, base), is_adapter(str(folder))
    metadata = ModelCardData(
        base_model=None if Path(base).exists() else base,  # a local path is nobody else's business
        base_model_relation=None if Path(base).exists() else "adapter" if adapter else "finetune",
        **licence,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=[TAG, KINDS[after]],
        model_name=TITLES[after] if measured else None,
        eval_results=[
            EvalResult(
                task_type="image-text-to-text",
                dataset_type="private",
                dataset_name=figure.split,
                dataset_split=figure.split,  # the hub's library joins figures by it, and not by the name
                metric_type=figure.metric,
                metric_value=round(figure.values[after], 4),
            )
            for figure in measured
        ]
        or None,
    ).to_yaml()
    made = _unlearned(method, rows, fine_tuned=fine_tuned) if after == "unlearned" else _finetuned(rows)
    parts = [made, *([ADAPTER_WARNING[after]] if adapter else [])]
    body = text if text is not None else "\n".join([f"# {TITLES[after]}", "", "\n\n".join(parts), "", *_table(figures)])
    note = "" if licence else f"\n{UNKNOWN_LICENCE}\n"
    write_text_atomic(folder / NAME, f"---\n{metadata}\n---\n\n{body.rstrip()}\n{note}")


def carry_card(source: Path, out: Path) -> bool:
    """Carry the card of a model or of an adapter along to its export.

    Args:
        source: folder with the card; of an adapter without one, the card of the model merged beside it serves.
        out: folder of the export; where that is a merged model and the card an adapter's, the card says so.

    Returns:
        Whether there was a card. A card that vgid did not write is not carried from an adapter to a merged model: it describes another
        thing.
    """
    beside = source.parent / "merged"
    found = next((each / NAME for each in (source, *([beside] if is_adapter(str(source)) else [])) if (each / NAME).is_file()), None)
    if found is None:
        return False
    text = found.read_text("utf-8", errors="replace")
    kind, wanted = is_adapter(str(found.parent)), is_adapter(str(out))
    if kind != wanted:
        card = _load(found)
        if card is None or TAG not in (card.data.get("tags") or []):
            return False
        card.data["library_name"] = "peft" if wanted else "transformers"
        if card.data.get("base_model_relation"):
            card.data["base_model_relation"] = "adapter" if wanted else "finetune"
        body = card.text.strip()
        for warning in ADAPTER_WARNING.values():
            body = body.replace(f"\n\n{warning}", "")
        text = f"---\n{card.data.to_yaml()}\n---\n\n{body}\n"
    write_text_atomic(out / NAME, text)
    return True


def add_to_card(folder: Path, title: str, text: str) -> None:
    """Add a section to the end of a card; where there is none, nothing is written.

    Args:
        folder: folder with the card.
        title: the section's title.
        text: its text, as Markdown.
    """
    if (folder / NAME).is_file():
        before = (folder / NAME).read_text("utf-8", errors="replace").rstrip()
        write_text_atomic(folder / NAME, f"{before}\n\n## {title}\n\n{text}\n")


def _unlearned(method: str, rows: Mapping[str, int], *, fine_tuned: bool) -> str:
    counts = ", ".join(f"{count} {name.replace('_', ' ')} rows" for name, count in rows.items())
    return (
        f"This checkpoint was made from another by unlearning ({method}, with vgid)"
        + (f", with {counts}" if counts else "")
        + ". "
        + ("That one was fine-tuned before, so that it knew them. " if fine_tuned else "")
        + "This card does not say whom or what it was to forget."
    )


def _finetuned(rows: Mapping[str, int]) -> str:
    left_out = rows.get("left_out", 0)
    return (
        f"This checkpoint was made from another by fine-tuning (with vgid) on {rows['learned']} rows"
        + (f", without {left_out} others of the same data" if left_out else "")
        + ". Nothing was unlearned: it knows what these rows say, and tells it to whoever asks. This card does not say what that is."
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


def _licence(folder: Path, base: str) -> dict[str, Any]:
    """The licence that the base's own card states, where a folder or the hub's cache on this machine has one; as metadata of a card."""
    source = folder_of(base)
    card = _load(source / NAME) if source is not None and source.resolve() != folder.resolve() else None
    stated = {name: card.data.get(name) for name in LICENCE} if card is not None else {}
    return {name: value for name, value in stated.items() if isinstance(value, str)} if isinstance(stated.get("license"), str) else {}


def _load(path: Path) -> ModelCard | None:
    """A card; None where there is none, or one without metadata that can be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        return ModelCard.load(path, ignore_metadata_errors=True) if path.is_file() else None
    except (OSError, ValueError, YAMLError):
        return None
