"""The table of benchmarks in the documentation."""

from pathlib import Path

from vgid.benchmarking.table import as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def test_the_documentation_has_the_table_of_the_registry() -> None:
    text = PAGE.read_text("utf-8")
    shown = text.partition("<!-- benchmarks: generated -->\n")[2].partition("<!-- /benchmarks -->")[0]
    assert shown == f"\n{as_markdown()}\n", "docs/benchmarks.md: put the output of as_markdown() between the markers"


def test_a_line_says_what_a_benchmark_asks_and_where_its_data_are() -> None:
    lines = as_markdown().splitlines()
    (mllmu,) = [line for line in lines if line.startswith("| `mllmu` |")]
    assert "[2410.22108](https://arxiv.org/abs/2410.22108)" in mllmu and "| 5, 10, 15 |" in mllmu and "; 50 tokens |" in mllmu
    assert "(https://huggingface.co/datasets/MLLMMU/MLLMU-Bench), [MLLMMU/baseline_train_split](https://huggingface.co/MLLMMU/" in mllmu
    assert {line.count("|") for line in lines} == {8} and len(lines) == 2 + 12
