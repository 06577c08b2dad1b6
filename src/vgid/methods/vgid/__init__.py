"""VGID: the method, its relearning adversary, and what its teacher sees."""

from vgid.methods.vgid.method import VGID, VGIDConfig

__all__ = ["VGID", "VGIDConfig"]
