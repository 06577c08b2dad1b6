"""The model card of the exported model: counts and figures, and nothing of the request."""

from __future__ import annotations

from pathlib import Path

from vgid.artifacts import write_text_atomic
from vgid.reading import read_json
from vgid.report.record import card_text
from vgid.requests.resolved import ResolvedRun

NAME = "README.md"


def write_model_card(run: ResolvedRun, folder: Path) -> None:
    """Write the card, with the metadata that the hub reads.

    Args:
        run: the run; its audit and evaluation are read.
        folder: folder of the exported model.

    Raises:
        OutputError: it cannot be written.
    """
    from huggingface_hub import ModelCardData

    audit, results = read_json(run.out / "audit" / "audit.json"), read_json(run.out / "evaluation" / "results.json")
    metadata = ModelCardData(
        base_model=run.name if run.revision is not None else None,  # a local path is nobody else's business
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["vgid", "unlearning"],
    ).to_yaml()
    people = len({row.subject for row in run.rows if row.subject})
    text = card_text(audit, results, run.config.method.name, people)
    write_text_atomic(folder / NAME, f"---\n{metadata}\n---\n\n{text}")
