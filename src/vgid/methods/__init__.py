"""Unlearning methods: one file and one registry line each."""

from vgid.methods import (
    dpo,
    finetune,
    ga,
    grad_diff,
    idk,
    kl_min,
    npo,
    retrain,
    simnpo,
    undial,
    untouched,
    vgid,
)
from vgid.methods.base import METHODS, Context, LossOutput, Method, StepBatch

__all__ = [
    "METHODS",
    "Context",
    "LossOutput",
    "Method",
    "StepBatch",
    "dpo",
    "finetune",
    "ga",
    "grad_diff",
    "idk",
    "kl_min",
    "npo",
    "retrain",
    "simnpo",
    "undial",
    "untouched",
    "vgid",
]
