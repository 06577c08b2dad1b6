"""The model card that goes with the exported model: what it is, by aggregate numbers only."""

from __future__ import annotations

from pathlib import Path

from vgid.artifacts import write_text_atomic
from vgid.requests.outcomes import read_json
from vgid.requests.resolved import Job

NAME = "README.md"


def write_card(job: Job, folder: Path) -> None:
    """Write the card, with the metadata that the hub reads; nothing of the request is in it but counts.

    Raises:
        OutputError: it cannot be written.
    """
    from huggingface_hub import ModelCardData

    audit = read_json(job.out / "audit" / "audit.json")
    public = job.revision is not None
    data = ModelCardData(
        base_model=job.name if public else None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["vgid", "unlearning"],
    )
    head = data.to_yaml()
    write_text_atomic(folder / NAME, f"---\n{head}\n---\n\n{_text(job, audit, read_json(job.out / 'evaluation' / 'results.json'))}")


def _text(job: Job, audit: dict[str, object], results: dict[str, object]) -> str:
    from vgid.report.record import card_text

    return card_text(audit, results, job.config.method.name, len({row.subject for row in job.demand.rows if row.subject}))
