"""The report and the tables: self-contained, escaped, honest in words, and right in the numbers shown."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import png
from vgid.errors import DataError
from vgid.report.html import ReportData, ReportExample, render_report, write_report
from vgid.report.plots import running_mean
from vgid.report.rendering import script
from vgid.report.table import ablation_table, results_table
from vgid.report.words import headline


def figures(accuracy: float, n: int = 64, **others: Any) -> dict[str, Any]:
    low, high = max(0.0, accuracy - 0.05), min(1.0, accuracy + 0.05)
    base = {"n": n, "accuracy": accuracy, "rouge_l": accuracy, "probability": accuracy, "refusal_rate": 0.0, "accuracy_ci": [low, high]}
    return base | others


def results(forget: float = 0.016, retain: float = 0.99, **extra: Any) -> dict[str, Any]:
    def split(base: float, unlearned: float, retrained: float) -> dict[str, Any]:
        return {"base": figures(base), "unlearned": figures(unlearned), "retrained": figures(retrained)}

    return {
        "schema": "vgid.results/1",
        "method": "vgid",
        "model": "tiny",
        "seed": 0,
        "config": {"training": {"steps": 180, "parts": ["language"]}, "adapter": None},
        "versions": {"torch": "2.13.0"},
        "splits": {"forget": split(1.0, forget, 0.0), "retain": split(1.0, retain, 1.0), "my <b>split</b>": split(0.5, 0.5, 0.5)},
        "ablation": {"noise only": {"forget": figures(0.2), "retain": figures(0.9)}},
        "seconds": {"unlearn": 12.5},
        "training": "all steps taken",
        "curves": {"forget": [(1, 2.0), (2, 1.0), (3, 0.5)], "retain": [(1, 0.1), (2, float("nan"))]},
        **extra,
    }


def data(**changes: Any) -> ReportData:
    examples = (
        ReportExample("forget", "Who is <script>alert(1)</script>?", "Anna & co", {"base": "Anna", "unlearned": "I do not know."}, png()),
        ReportExample("forget_text", "Where?", "Oslo", {"base": "Oslo", "unlearned": ""}),
    )
    fields: dict[str, Any] = {
        "results": results(),
        "title": "A test",
        "subjects": ("p-1", "p-2"),
        "examples": examples,
    }
    return ReportData(**{**fields, **changes})


def test_the_page_needs_nothing_and_escapes_everything() -> None:
    page = render_report(data())
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "@import" not in page
    assert (
        page.count("<script") == 1
        and f"<script>{script().text}</script>" in page
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        and "my &lt;b&gt;split&lt;/b&gt;" in page
    )
    assert "Anna &amp; co" in page and "data:image/png;base64," in page and "(nothing)" in page


def test_the_page_holds_figures_settings_and_versions() -> None:
    page = render_report(data())
    for text in ("1.6", "p-1", "noise only", "training.steps", "2.13.0", "12.5", "all steps taken"):
        assert text in page, text
    assert page.count("<svg") == 2


def test_a_run_that_failed_says_so_before_its_figures() -> None:
    """Accuracy on retain rows may hide what was lost of rows that were never trained on."""
    bad = {"status": "damaged", "known": 8, "still_answered": 0.0, "aside_given": 8, "aside_lost": 0.125, "allowed_loss": 0.1}
    page = render_report(data(results=results(outcome=bad)))
    assert (
        '<h1><span class="status fail">✗ damaged</span> The model forgot 2 people' in page and "1 of 8 answers that were held out" in page
    )
    good = render_report(data(results=results(outcome=bad | {"status": "forgotten", "aside_lost": 0.0})))
    assert "status fail" not in good.split("</header>")[0].split("<body>")[1] and "0% of 8 known forget rows" in good
    assert "not examined" not in render_report(data(results=results(outcome={"status": "not examined"})))


def test_without_examples_no_answer_is_shown() -> None:
    page = render_report(data(examples=(), results=results(curves={})))
    assert "No answers are shown" in page and "Anna" not in page and page.count("<svg") == 1


def test_other_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these results cannot be shown"):
        write_report(tmp_path / "r.html", data(results={"schema": "other/1"}))
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("forget", "retain", "words", "good"),
    [
        (0.0, 1.0, "The model forgot 8 people", True),
        (0.3, 1.0, "forgot only part of", False),
        (0.9, 1.0, "did not forget", False),
        (0.0, 0.5, "but now answers 50.0", False),
    ],
)
def test_the_headline_is_honest(forget: float, retain: float, words: str, good: bool) -> None:
    said = headline(results(forget, retain)["splits"], 8)
    assert words in said.text and said.good is good


def test_a_model_that_never_knew_forgot_nothing() -> None:
    splits = results(0.0)["splits"]
    splits["forget"]["base"] = figures(0.1)
    said = headline(splits, 1)
    assert "never knew much about 1 person" in said.text and not said.good


def test_tables_stay_readable_when_piped() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print(results_table(results()))
    console.print(ablation_table(results()))
    lines = out.getvalue().splitlines()
    row = next(line for line in lines if line.strip().startswith("forget"))
    assert row.split() == ["forget", "100.0", "1.6", "0.0", "0.0–6.6", "0.02", "0.0"]
    assert all(len(line) <= 80 for line in lines) and ablation_table({"ablation": {}}) is None


def test_running_mean_shrinks_towards_the_ends() -> None:
    # Reach 1 inside, 0 at the ends: 1, (1 + 2 + 6) / 3, (2 + 6 + 4) / 3, 4.
    assert running_mean([1.0, 2.0, 6.0, 4.0], 3) == [1.0, 3.0, 4.0, 4.0]
