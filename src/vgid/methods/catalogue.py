"""What `vgid methods` lists: every method with where it is from and what it needs."""

from __future__ import annotations

from typing import Any

from vgid.methods.base import METHODS, Method
from vgid.settings import DEFAULT_METHOD

KINDS = ("trained", "edit", "inference", "reference")


def catalogue() -> list[dict[str, Any]]:
    """All methods, the default one first, then by kind and name; plain values only."""
    rows = [_row(name, METHODS.get(name)) for name in METHODS]
    return sorted(rows, key=lambda row: (row["name"] != DEFAULT_METHOD, KINDS.index(row["kind"]), row["name"]))


def _row(name: str, method: type[Method[Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": method.kind,
        "summary": (method.__doc__ or "").strip().splitlines()[0],
        "paper": method.paper or None,
        "needs": list(method.needs),
        "trains": list(method.trainable) if method.trains else [],
        "settings": [field for field in method.Config.model_fields if field != "name"],
        "package": METHODS.package(name),
        "defaults": dict(method.defaults),
        "search": {key: space._asdict() if hasattr(space, "_asdict") else list(space) for key, space in method.search.items()},
    }
