"""Benchmarks by name, one file each: rows for unlearning, and the benchmark's own evaluation by its published protocol."""

from vgid.benchmarks.base import BENCHMARKS
from vgid.registry import discover

discover(__name__)

__all__ = ["BENCHMARKS"]
