"""What is looked at before training: model, rows, gradients, memory, and whether the model knows what it is to forget."""

from vgid.checks.preflight import Preflight, as_json, preflight

__all__ = ["Preflight", "as_json", "preflight"]
