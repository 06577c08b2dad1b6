"""Benchmarks by name, one file each: the data for unlearning, and the benchmark's own evaluation to its published protocol."""

from vgid.benchmarks.base import BENCHMARKS
from vgid.registry import discover

discover(__name__)

__all__ = ["BENCHMARKS"]
