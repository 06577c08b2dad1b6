"""Every result that README or docs quote exists, says which code it was measured with, and is marked where that code has changed."""

import json
import re
from pathlib import Path

import pytest

from tests.docs.generated import DATED, RESULTS, age_of_results, named_results, pages_with_results, sources
from tests.docs.markdown import ROOT


@pytest.mark.parametrize("page", [*pages_with_results(), *DATED])
def test_results_that_are_quoted_exist(page: str) -> None:
    missing = [name for name in named_results((ROOT / page).read_text("utf-8")) if not (RESULTS / name).is_file()]
    assert not missing, f"{page} quotes results that do not exist: {missing}"


def test_a_page_says_which_results_are_older() -> None:
    # `settings-tiny.json` holds no digests: it counts as older.
    text = "See `perf/results/settings-tiny.json`.\n\n<!-- figures: generated -->\n\n`step-old.json`\n\n<!-- /figures -->\n"
    assert named_results(text) == ["settings-tiny.json"]
    assert age_of_results(text) == "Older than the present code: `settings-tiny.json` (26 November 2026, commit `32124ce`).\n"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_results_say_what_they_were_measured_with_and_are_quoted(path: Path) -> None:
    found = sources().read(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.date) and re.fullmatch(r"[0-9a-f]{7}", found.commit)
    quoted = {name for page in (*pages_with_results(), *DATED) for name in named_results((ROOT / page).read_text("utf-8"))}
    assert path.name in quoted, "no page quotes it"


def test_digests_change_with_code_and_not_with_wording(tmp_path: Path) -> None:
    module = sources()
    module.ROOT = tmp_path
    place = tmp_path / "one.py"
    place.write_text('"""What it does."""\nX = 1  # why\n', "utf-8")
    before = module.digests(["one.py"])
    place.write_text('"""Other words."""\n\nX = 1\n', "utf-8")
    assert module.digests(["one.py"]) == before
    assert not module.Measured("2026-11-26", "0000000", before).older
    place.write_text('"""Other words."""\nX = 2\n', "utf-8")
    assert module.digests(["one.py"]) != before and module.Measured("2026-11-26", "0000000", before).older
    place.unlink()
    assert module.Measured("2026-11-26", "0000000", before).older


def test_a_result_is_written_with_its_sources(tmp_path: Path) -> None:
    module = sources()
    module.write_result(tmp_path / "r.json", {"seconds": 1}, "perf/sources.py")
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["seconds"] == 1
    assert module.read(tmp_path / "r.json").sources == module.digests(["perf/sources.py"])
