"""`vgid metrics measure`: the values of metrics for one model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from vgid.attacks.base import Material, sample_rows
from vgid.data.example import subject_key
from vgid.data.sources import Rows, check_disjoint, rows_of
from vgid.errors import DataError
from vgid.evaluation.statistics import bootstrap_ci
from vgid.metrics.base import METRICS, Reading
from vgid.models.loading import LoadedModel
from vgid.progress import Progress
from vgid.results import versions

SCHEMA = "vgid.metrics/1"


def list_metrics() -> list[dict[str, Any]]:
    """All metrics: name, summary, what each measures, reads and needs, unit and source."""
    found = []
    for name in METRICS:
        metric = METRICS.get(name)
        about = (metric.__doc__ or "").strip().splitlines()[0]
        fields = {
            "measures": metric.measures,
            "reads": metric.reads,
            "needs": list(metric.needs),
            "unit": metric.unit,
            "paper": metric.paper,
        }
        found.append({"name": name, "about": about, **fields})
    return found


def measure(
    loaded: LoadedModel,
    forget: Rows,
    retain: Rows,
    *,
    unseen: Rows | None = None,
    reference: LoadedModel | None = None,
    metrics: Sequence[str] = (),
    max_rows: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure what a model knows of the forget rows.

    Args:
        loaded: the model; it is left unchanged.
        forget: rows that were to be forgotten.
        retain: rows that must still be known; values in wrong answers are taken from them.
        unseen: rows about people that no model was trained on; some metrics need them.
        reference: a model that never saw forget and unseen rows; some metrics need it.
        metrics: names of the metrics; none for all that apply.
        max_rows: largest number of forget rows, and of unseen rows; None asks them all.
        batch_size: number of rows that are asked at once.
        seed: random seed of samples, of training in `rebound`, and of intervals.
        on_progress: called with the number of metrics done and their total.

    Returns:
        The results object (schema `vgid.metrics/1`): by metric the mean over forget rows, its 95 % interval over people, unit and number
        of rows. `left_out` says of the others what they need.

    Raises:
        ConfigError: there is no such metric.
        DataError: there are no forget rows, or a row is in both sets.
    """
    chosen = {name: METRICS.get(name) for name in metrics or METRICS}
    rows, others = rows_of(forget), rows_of(retain)
    if not rows:
        raise DataError("there are no forget rows to measure", expected="at least one", got="none", fix="give --forget")
    check_disjoint(rows, others)
    strangers = rows_of(unseen) if unseen is not None else []
    asked, met = (sample_rows(each, max_rows or len(each), seed) for each in (rows, strangers))
    material = Material(asked, others, seed, met, batch_size=batch_size, pool=[*rows, *others])
    reading = Reading(loaded, material, Reading(reference, material) if reference else None)
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for done, (name, metric) in enumerate(chosen.items(), 1):
        values = metric().run(reading) if metric().applies(reading) else {}
        if values:
            people = [subject_key(row) for row in asked if row.id in values]
            numbers = [values[row.id] for row in asked if row.id in values]
            interval = bootstrap_ci(numbers, people, seed=seed)
            found[name] = {"value": fmean(numbers), "interval": list(interval), "rows": len(numbers), "unit": metric.unit}
        else:
            left_out[name] = f"needs {' and '.join(metric.needs)}" if metric.needs else "does not apply to these rows or this model"
        if on_progress is not None:
            on_progress(done, len(chosen))
    counts = {"rows": len(asked), "people": len({subject_key(row) for row in asked})}
    return {"schema": SCHEMA, **counts, "metrics": found, "left_out": left_out, "seed": seed, "versions": versions()}
