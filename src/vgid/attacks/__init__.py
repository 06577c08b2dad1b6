"""Attacks on models that are said to have forgotten: one file and one registry line each."""

from vgid.attacks import (
    adapter_scaling,
    cross_modal,
    figstep,
    image_rephrase,
    in_context,
    jailbreak,
    mia,
    multiple_choice,
    paraphrase,
    prefill,
    quantize,
    relearn,
    sua,
    suffix,
    token_rank,
)
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome

__all__ = [
    "ATTACKS",
    "Attack",
    "Material",
    "Outcome",
    "adapter_scaling",
    "cross_modal",
    "figstep",
    "image_rephrase",
    "in_context",
    "jailbreak",
    "mia",
    "multiple_choice",
    "paraphrase",
    "prefill",
    "quantize",
    "relearn",
    "sua",
    "suffix",
    "token_rank",
]
