"""Unlearning methods by name: each file or folder in here that registers one is a method."""

from vgid.methods.base import METHODS, Context, LossOutput, Method, StepBatch
from vgid.registry import discover

discover(__name__)

__all__ = ["METHODS", "Context", "LossOutput", "Method", "StepBatch"]
