"""Attacks on models that are said to have forgotten: one file each, which registers itself when this package is imported."""

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome
from vgid.registry import discover

discover(__name__)

__all__ = ["ATTACKS", "Attack", "Material", "Outcome"]
