"""Attacks on models that are said to have forgotten, one file each."""

from vgid.attacks.base import ATTACKS, Attack, Material, Outcome
from vgid.registry import discover

discover(__name__)

__all__ = ["ATTACKS", "Attack", "Material", "Outcome"]
