"""How results are shown: tables for people, or JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


def show(results: Mapping[str, Any], as_json: bool, out: Path | None) -> None:
    """Print a results object, as tables or as JSON, and where its files are."""
    from vgid.report.table import ablation_table, results_table

    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return
    console = terminal()
    if results["splits"]:
        console.print(results_table(results))
    if ablated := ablation_table(results):
        console.print(ablated)
    show_files(console, out)


def show_files(console: Console, out: Path | None) -> None:
    """Say what a run has left in its folder."""
    for name in (
        "report.html",
        "results.json",
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "audit.html",
        "audit.json",
        "answers",
        "merged",
        "unlearned",
    ):
        if out is not None and (out / name).exists():
            console.print(f"{name.split('.')[0]:<8} {out / name}", soft_wrap=True, highlight=False)


def terminal(width: int = 140) -> Console:
    """Where tables go; a pipe has no width of its own, so it gets one that wraps nothing."""
    console = Console()
    if not console.is_terminal:
        console.width = width
    return console


def plain(text: str) -> str:
    """Text whose brackets are no markup."""
    from rich.markup import escape

    return escape(text)
