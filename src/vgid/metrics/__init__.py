"""Metrics of forgetting: one file each, which registers itself when this package is imported."""

from vgid.metrics.base import METRICS, Metric, Reading
from vgid.registry import discover

discover(__name__)

__all__ = ["METRICS", "Metric", "Reading"]
