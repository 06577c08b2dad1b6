"""The page and the tables of a comparison: escaped, self-contained, and right in the numbers shown."""

import io
from typing import Any

import pytest
from rich.console import Console

from vgid.errors import DataError
from vgid.report.comparison import comparison_markdown, comparison_table, headline, render_comparison
from vgid.report.html import ReportExample


def scored(composite: float, forgetting: float, utility: float) -> dict[str, Any]:
    ends = {
        f"{key}_ci": [value - 0.05, value] for key, value in (("composite", composite), ("forgetting", forgetting), ("utility", utility))
    }
    return {"composite": composite, "forgetting": forgetting, "utility": utility, **ends}


def figures(accuracy: float) -> dict[str, Any]:
    rest = {"rouge_l": accuracy, "probability": accuracy, "refusal_rate": 0.0, "accuracy_ci": [accuracy, accuracy]}
    return {"n": 8, "accuracy": accuracy, **rest}


def results(**changes: Any) -> dict[str, Any]:
    names = ("retrain", "vgid", "g<a>", "untouched")
    return {
        "schema": "vgid.comparison/1",
        "target": "tiny",
        "people": 32,
        "forget": 8,
        "seeds": [0, 1],
        "budget": "equal-steps",
        "trials": 0,
        "tuned_on": None,
        "scores": dict(
            zip(names, (scored(1, 1, 1), scored(0.96, 0.98, 0.94), scored(0.2, 1.0, 0.11), scored(0.1, 0.05, 1.0)), strict=True)
        ),
        "failed": {"manu": ["nothing to prune"]},
        "pareto": ["vgid", "g<a>"],
        "pairs": [{"better": "vgid", "than": "g<a>", "difference": 0.76, "ci": [0.7, 0.8], "p_value": 0.0005}],
        "splits": {"forget": {name: figures(0.125) for name in names}, "retain": {name: figures(0.875) for name in names}},
        "looks": {"g<a>": [{"forget": [[20, 0.5], [40, 0.0]], "retain": [[20, 0.75], [40, 0.125]]}]},
        "curves": {"g<a>": [{"forget": [[20, 1.5], [40, 0.5]], "drift retain": [[40, 0.25]]}]},
        "cost": {name: {"steps": 200, "seconds": 12.34, "memory": 5e8} for name in names},
        "configs": {"vgid": {"training": {"steps": 200}}},
        "tuned": {},
        "warnings": ["seed 0: nothing <known>"],
        "versions": {"torch": "2.13"},
        "machine": {"cores": 2},
        **changes,
    }


def test_the_page_is_whole_and_escaped() -> None:
    shown = ReportExample(split="forget", question="Who is <this>?", expected="Anna", answers={"vgid": "", "g<a>": "<b>"})
    page = render_comparison(results(), [shown])
    assert page.count("<svg") == 5 and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "Who is &lt;this&gt;?" in page and "&lt;b&gt;" in page and "<a>" not in page and "&lt;known&gt;" in page
    assert "0.960" in page and "0.0005" in page and "12.3&nbsp;s" in page and "nothing to prune" in page
    assert "Rows recalled during training with g&lt;a&gt;; at the end forget 0%; retain 12%." in page
    assert "loss during training with g&lt;a&gt;; at the end forget 0.5." in page and "at the end retain 0.25." in page
    assert "Anna" not in render_comparison(results())
    assert render_comparison(results(curves={}, looks={})).count("<svg") == 2  # results of a release that did not keep curves


def test_the_headline_names_the_leader_among_methods() -> None:
    assert headline(results()) == "vgid has the best composite score, 0.960, significantly better than 1 of 1 others (p < 0.05)"
    pairs = [{"better": "vgid", "than": "g<a>", "difference": 0.01, "ci": [-0.1, 0.1], "p_value": 0.4}]
    assert "significantly better than 0 of 1 others" in headline(results(pairs=pairs))


def test_the_corner_is_enlarged_where_several_crowd() -> None:
    alt = "Forgetting against utility, from 0.9 on. retrain: 1 forgetting, 1 utility; vgid: 0.98 forgetting, 0.94 utility. On the front"
    page = render_comparison(results())
    assert alt in page and "g&lt;a&gt;: 1 forgetting, 0.11 utility; untouched: 0.05" in page
    alone = results(scores={"vgid": scored(0.96, 0.98, 0.94), "g<a>": scored(0.2, 1.0, 0.11)})
    assert "from 0.9 on" not in render_comparison(alone) and "enlarged" not in render_comparison(alone)


def test_the_table_for_papers() -> None:
    lines = comparison_markdown(results()).splitlines()
    assert lines[0] == "| method | composite | forgetting | utility | `forget` | `retain` | seconds |"
    assert lines[3] == "| vgid | 0.960 (0.910–0.960) | 0.980 | 0.940 | 12.5 | 87.5 | 12.3 |"
    assert {line.count("|") for line in lines[:7]} == {8} and lines[6].startswith("| manu | failed: nothing to prune |")


def test_the_table_for_the_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(comparison_table(results()))
    text = out.getvalue()
    assert "0.960" in text and "0.910–0.960" in text and "500" in text and "failed" in text
    row = next(line for line in text.splitlines() if line.lstrip().startswith("g<a>"))
    assert row.split() == ["g<a>", "0.200", "0.150–0.200", "1.000", "0.110", "0.001", "12.3", "500"]


def test_results_of_another_schema_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be shown"):
        render_comparison(results(schema="vgid.results/1"))
