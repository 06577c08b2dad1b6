"""The list of unlearning methods: for `vgid methods`, and for the table in docs/methods.md."""

from __future__ import annotations

from typing import Any

from vgid.methods.base import METHODS, Method
from vgid.settings import DEFAULT_METHOD

KINDS = ("trained", "edit", "inference", "reference")
"""Kinds of methods, in the order in which they are listed."""


def catalogue() -> list[dict[str, Any]]:
    """All methods, the default one first, then by kind and name.

    Returns:
        One mapping of plain values for each method: name, kind, summary, paper (number on arXiv), needs, what it trains, names of its
        settings, the package that offers it (None for our own), default settings and search space.
    """
    rows = [_row(name, METHODS.get(name)) for name in METHODS]
    return sorted(rows, key=lambda row: (row["name"] != DEFAULT_METHOD, KINDS.index(row["kind"]), row["name"]))


def markdown() -> str:
    """The methods of this package as a Markdown table: name, summary, needs and a link to the paper; one line for each."""
    lines = ["| name | what it does | needs | paper |", "|---|---|---|---|"]
    for row in catalogue():
        if row["package"] is None:
            paper = f"[{row['paper']}](https://arxiv.org/abs/{row['paper']})" if row["paper"] else "–"
            lines.append(f"| `{row['name']}` | {row['summary'].removesuffix('.')} | {', '.join(row['needs']) or '–'} | {paper} |")
    return "\n".join(lines) + "\n"


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
