"""What is said about methods: in the catalogue, in the documentation, to those who tune them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vgid.config import resolve
from vgid.methods import METHODS
from vgid.methods.base import Range
from vgid.methods.catalogue import catalogue
from vgid.report.table import methods_table

ROWS = {row["name"]: row for row in catalogue()}


def test_the_catalogue_is_the_registry() -> None:
    assert set(ROWS) == set(METHODS) and next(iter(ROWS)) == "vgid"
    assert json.loads(json.dumps(list(ROWS.values()))) == json.loads(json.dumps(catalogue()))


def test_the_table_tells_names_papers_and_needs() -> None:
    console = Console(width=140, file=io.StringIO())
    console.print(methods_table(catalogue()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in text for name in METHODS) and "2404.05868" in text
    assert "an adapter" in next(line for line in text.splitlines() if "smfa" in line)
    assert "full parameters" in next(line for line in text.splitlines() if "mmunlearner" in line)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row["name"])
def test_every_method_says_what_it_is(row: dict[str, Any]) -> None:
    assert row["summary"].endswith(".") and row["kind"] in ("trained", "edit", "inference", "reference")
    assert (row["paper"] is None) == (row["kind"] == "reference")
    documented = (Path(__file__).parents[2] / "docs" / "methods.md").read_text("utf-8")
    line = next(line for line in documented.splitlines() if line.startswith(f"| `{row['name']}` |"))  # the table of formulas follows
    assert row["paper"] is None or row["paper"] in line
    assert ("retain" in line) == any("retain" in need for need in row["needs"])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_tried_when_tuning_is_valid(name: str) -> None:
    method = METHODS.get(name)
    config = resolve(method=name)
    assert config.method.name == name
    for key, space in method.search.items():
        values = (space.low, space.high) if isinstance(space, Range) else space
        if isinstance(space, Range):
            assert space.low < space.high and (space.low > 0 or not space.log)
        for value in values:
            assert resolve(None, [f"{key}={json.dumps(value)}"], method=name)


def test_settings_that_fit_a_method_give_way_to_ones_own() -> None:
    assert resolve(method="mmunlearner").adapter is None and resolve(method="mmunlearner").training.learning_rate == 2e-5
    assert resolve(None, ["training.learning_rate=1e-3"], method="mmunlearner").training.learning_rate == 1e-3
