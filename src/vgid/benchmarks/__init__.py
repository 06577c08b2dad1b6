"""Benchmarks by name: the data for unlearning, and the benchmark's own evaluation to its published protocol."""

from vgid.benchmarks import clear, mllmu
from vgid.benchmarks.base import BENCHMARKS

__all__ = ["BENCHMARKS", "clear", "mllmu"]
