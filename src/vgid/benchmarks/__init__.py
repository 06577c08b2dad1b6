"""Benchmarks by name: the data for unlearning, and the benchmark's own evaluation to its published protocol."""

from vgid.benchmarks import clear, covubench, fiubench, mllmu, open_mmunlearning, people, safeeraser, umu
from vgid.benchmarks.base import BENCHMARKS

__all__ = ["BENCHMARKS", "clear", "covubench", "fiubench", "mllmu", "open_mmunlearning", "people", "safeeraser", "umu"]
