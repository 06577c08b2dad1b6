"""Unlearning methods: one file and one registry line each."""

from vgid.methods import finetune, vgid
from vgid.methods.base import METHODS, Context, LossOutput, Method, StepBatch

__all__ = ["METHODS", "Context", "LossOutput", "Method", "StepBatch", "finetune", "vgid"]
