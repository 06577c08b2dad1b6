"""The figures of docs/results.md are those of the files in perf/results."""

import json
import re
from typing import Any

import pytest

from tests.docs.markdown import ROOT

TEXT = (ROOT / "docs" / "results.md").read_text("utf-8")
MAIN, FRESH, RIVALS, MORE = "compare-tiny", "compare-tiny-fresh", "compare-tiny-31", "compare-tiny-41"
SMOL, SMOL_FASTER = "compare-smol", "compare-smol-2e-3"


def results(name: str) -> dict[str, Any]:
    """A comparison's results object."""
    found: dict[str, Any] = json.loads((ROOT / "perf" / "results" / f"{name}.json").read_text("utf-8"))
    return found


def tables(first: str) -> list[list[list[str]]]:
    """Cells of every table whose first heading is `first`, without its two lines of heading."""
    found = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]


def scored(name: str, method: str) -> list[str]:
    """A method's cells, as a comparison's table has them."""
    found = results(name)
    score, low_high = found["scores"][method], found["scores"][method]["composite_ci"]
    numbers = [score["composite"], *low_high, score["forgetting"], score["utility"]]
    composite, low, high, *parts = [f"{number:.3f}" for number in numbers]
    shares = [f"{100 * found['splits'][split][method]['accuracy']:.1f}" for split in found["splits"]]
    return [f"{composite} ({low}–{high})", *parts, *shares, f"{found['cost'][method]['seconds']:.1f}"]


@pytest.mark.parametrize(("place", "name"), [(0, MAIN), (1, FRESH), (2, RIVALS), (3, MORE)])
def test_scores(place: int, name: str) -> None:
    table = tables("method")[place]
    assert {method for method, *_ in table} == set(results(name)["scores"])
    for method, *cells in table:
        assert cells == scored(name, method), method


def test_scores_of_the_larger_model() -> None:
    table = tables("method")[4]
    assert len(table) == 8
    for shown, *cells in table:
        method, _, rate = shown.partition(", ")
        assert cells == scored(SMOL_FASTER if rate == "2e-3" else SMOL, method), shown


@pytest.mark.parametrize(("place", "name"), [(0, MAIN), (1, FRESH), (2, RIVALS), (3, MORE)])
def test_pairs(place: int, name: str) -> None:
    pairs = {pair["than"]: pair for pair in results(name)["pairs"] if pair["better"] == "vgid"}
    for other, difference, interval, p_value in tables("`vgid` against")[place]:
        names = re.findall(r"`(\w+)`", other)
        found = [pairs[each] for each in names]
        if len(names) > 1:
            low, high = (float(number) for number in difference.replace("+", "").split(" to "))
            assert all(low - 0.005 <= pair["difference"] <= high + 0.005 and pair["p_value"] < 0.001 for pair in found)
            continue
        (pair,) = found
        shown = [f"{number:+.3f}".replace("-", "−") for number in (pair["difference"], *pair["ci"])]
        assert [difference, *interval.split(" to ")] == shown, other
        assert float(p_value) == pytest.approx(pair["p_value"], abs=0.0005), other


def test_scores_of_each_held_out_seed() -> None:
    found, head = results(FRESH), re.search(r"^\| seed \| (.*) \|$", TEXT, re.MULTILINE)
    names = re.findall(r"`(\w+)`", head[1])
    for seed, *cells in tables("seed")[0]:
        assert cells == [f"{found['scores'][name]['seeds'][found['seeds'].index(int(seed))]['composite']:.3f}" for name in names]


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"[\w-]+\.json\b", TEXT)
    assert len(named) > 5
    assert all((ROOT / "perf" / "results" / name).is_file() for name in named)
