"""What steps leave for those after them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKS = "checks"
"""Outcomes of steps that write one small file."""


def read_json(path: Path) -> dict[str, Any]:
    """A file that an earlier step wrote."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
