"""Attacks on models that are said to have forgotten: one file and one registry line each."""

from vgid.attacks import (
    cross_modal,
    figstep,
    image_rephrase,
    in_context,
    jailbreak,
    paraphrase,
    prefill,
)
from vgid.attacks.base import ATTACKS, Attack, Material, Outcome

__all__ = [
    "ATTACKS",
    "Attack",
    "Material",
    "Outcome",
    "cross_modal",
    "figstep",
    "image_rephrase",
    "in_context",
    "jailbreak",
    "paraphrase",
    "prefill",
]
