"""VGID: the method, its relearning adversary, and how its teacher's inputs come about."""

from vgid.methods.vgid.method import VGID, VGIDConfig

__all__ = ["VGID", "VGIDConfig"]
