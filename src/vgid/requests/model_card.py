"""The model card of the exported model: counts and figures, and nothing of the request."""

from __future__ import annotations

from pathlib import Path

from vgid.model_card import figures_of, write_card
from vgid.reading import read_json
from vgid.report.record import card_text
from vgid.requests.build_record import whole_outcome
from vgid.requests.resolved import ResolvedRun

NAMELESS = ("forget", "held_out", "retain", "kept")
"""Splits whose names say nothing of earlier requests."""


def write_model_card(run: ResolvedRun, folder: Path) -> None:
    """Write the card, with the metadata that the hub reads.

    Args:
        run: the run; its audit and evaluation are read.
        folder: folder of the exported model.

    Raises:
        OutputError: it cannot be written.
    """
    audit, results = read_json(run.out / "audit" / "audit.json"), read_json(run.out / "evaluation" / "results.json")
    outcome = whole_outcome(results["outcome"], read_json(run.work / "unlearn" / "results.json")["outcome"]).model_dump()
    people = len({row.subject for row in run.rows if row.subject})
    write_card(
        folder,
        run.name if run.revision is not None else str(run.model),
        run.config.method.name,
        figures_of({name: each for name, each in results["splits"].items() if name in NAMELESS}),
        rows={},
        text=card_text(audit, {**results, "outcome": outcome}, run.config.method.name, people),
    )
