"""How results are shown: tables for people, or JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

FILES = (
    "report.html",
    "results.json",
    "comparison.html",
    "comparison.json",
    "comparison.md",
    "audit.html",
    "audit.json",
    "experiment.html",
    "experiment.json",
    "experiment.md",
    "experiment.tex",
    "metrics.html",
    "metrics.json",
    "metrics.md",
    "metrics.tex",
    "answers",
    "merged",
    "unlearned",
)
"""What runs leave in their folders, in the order in which it is listed."""


def show(content: Mapping[str, Any] | list[Any], as_json: bool, shown: Iterable[RenderableType] = (), out: Path | None = None) -> None:
    """Print a results object as JSON alone, or as tables followed by the files that the run left.

    Args:
        content: the results object.
        as_json: print it as JSON.
        shown: tables and lines for people.
        out: folder of the run.
    """
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False, default=str))
        return
    console = terminal()
    for each in shown:
        console.print(each, soft_wrap=isinstance(each, str), highlight=False)
    for name in FILES:
        if out is not None and (out / name).exists():
            console.print(f"{name.split('.')[0]:<8} {out / name}", soft_wrap=True, highlight=False)


def terminal(width: int = 140) -> Console:
    """The console for tables; a pipe has no width, so it gets one that wraps nothing."""
    console = Console(emoji=False)  # a path such as a:cat:b stays as it is
    if not console.is_terminal:
        console.width = width
    return console


def plain(text: str) -> str:
    """Text in which brackets are not markup, and control characters, which could move the cursor, are written out."""
    from rich.markup import escape

    return escape("".join(each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text))
