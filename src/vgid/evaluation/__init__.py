"""Measurements of a model: its answers, metrics over them, and confidence intervals."""
