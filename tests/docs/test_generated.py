"""Generated parts of the documentation are what the code gives."""

import pytest

from tests.docs.generated import COMMAND, by_hand, expected, generated_pages
from tests.docs.markdown import ROOT

SLOW = ("docs/scaling.md",)
"""Pages that take seconds: models with 72 B parameters are built there, without weights."""


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in generated_pages()])
def test_a_page_is_what_the_code_gives(page: str) -> None:
    assert (ROOT / page).read_text("utf-8") == expected(page), f"{page} is out of date: write it with `{COMMAND}`"


def test_what_is_written_by_hand_is_left() -> None:
    assert by_hand(ROOT / "docs" / "settings.md") == ""
    page = ROOT / "docs" / "methods.md"
    assert "arxiv.org/abs/2404.05868" in page.read_text("utf-8") and "arxiv.org/abs/2404.05868" not in by_hand(page)
    assert by_hand(page).count("\n") == page.read_text("utf-8").count("\n")
