"""The README stays short, in order and true: sections, results from the files it names, names from the registries, citations."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from tests.docs.markdown import LINK, ROOT, blocks, missing_links, paragraphs, words
from tests.models.families import FAMILIES
from vgid.attacks import ATTACKS
from vgid.benchmarks import BENCHMARKS
from vgid.methods import METHODS

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
SECTIONS = [
    "Install",
    "Quickstart",
    "What is in it",
    "Results",
    "Deletion requests",
    "Documentation",
    "Citation",
    "Contributing",
    "Licence",
]
FIGURE = re.compile(r"([−-]?\d+\.\d+)(?: %)? \(([−-]?\d+\.\d+) to ([−-]?\d+\.\d+)\)")
"""A figure with its interval, as in `0.996 (0.985 to 0.998)`."""


class Figure(NamedTuple):
    """A value with its interval, rounded as the README shows it."""

    value: str
    low: str
    high: str


def section(title: str) -> str:
    """The text below a heading."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """The cells of a section's only table, without its two lines of heading."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def sentences(text: str) -> int:
    """Number of sentences: full stops, question and exclamation marks that end the text or stand before a space."""
    return len(re.findall(r"[.!?](?=\s|$)", text))


# -- Form -----------------------------------------------------------------------------------------------------------------


def test_at_most_700_words() -> None:
    assert words(TEXT) <= 700


def test_no_paragraph_has_more_than_60_words() -> None:
    assert [part[:60] for part in paragraphs(TEXT) if words(part) > 60] == []


def test_words_and_paragraphs_are_counted_as_described() -> None:
    text = "# Head\n\none *two* [three](x.md)\n\n| 4 | – |\n\n```sh\nnot counted\n```\n\n- five\n- six seven\n"
    assert words(text) == 8
    assert paragraphs(text) == ["one *two* [three](x.md)", "- five", "- six seven"]


def test_the_sections_are_in_order() -> None:
    assert re.findall(r"^#+ .*", TEXT, re.MULTILINE)[0] == "# vgid"
    assert re.findall(r"^## (.*)", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE), re.MULTILINE) == SECTIONS


def test_the_top_is_one_sentence_then_badges_then_a_picture() -> None:
    top = TEXT.split("\n## ")[0].split("\n\n")[1:]
    assert len(top) == 3 and sentences(top[0]) == 1
    badges = re.findall(r"^\[!\[(\w+)[^\]]*\]\(\S+\)\]\(\S+\)$", top[1], re.MULTILINE)
    assert badges == ["Licence", "Python", "CI"] and len(top[1].splitlines()) == 3
    assert re.fullmatch(r"!\[.{20,}\]\(docs/img/[\w-]+\.png\)", top[2].strip())


def test_badges_say_what_the_package_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"[![Licence: {project['license']}]" in TEXT
    versions = [entry.rsplit(" ", 1)[1] for entry in project["classifiers"] if entry.startswith("Programming Language :: Python :: 3.")]
    assert f"[![Python: {' and '.join(versions)}]" in TEXT


def test_every_local_link_exists() -> None:
    assert missing_links(README) == []
    assert len(LINK.findall(TEXT)) > 30


# -- Quickstart -----------------------------------------------------------------------------------------------------------


def test_two_commands_do_everything_on_a_fresh_machine() -> None:
    first = next(block for block in blocks(README) if block.language == "sh")
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make demo", "make test"]
    assert "fresh machine" in section("Install").split("```")[0]


def test_command_line_and_python_use_the_same_files_and_settings() -> None:
    (python,) = (block.text for block in blocks(README) if block.language == "python")
    lines = [line for block in blocks(README) if block.language == "sh" for line in block.text.splitlines()]
    (command,) = (shlex.split(line) for line in lines if line.startswith("vgid unlearn "))
    options = dict(zip(command[2::2], command[3::2], strict=True))
    files = {options.pop(name) for name in ("--model", "--forget", "--retain", "--out")}
    tree = ast.parse(python)
    assert files <= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    calls = {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    resolved = {each.arg: ast.literal_eval(each.value) for each in calls["vgid.resolve"].keywords} if "vgid.resolve" in calls else {}
    overrides = {"overrides": [options["--set"]]} if "--set" in options else {}
    given = {name: options[f"--{name}"] for name in ("recipe", "method") if f"--{name}" in options}
    assert given | overrides == resolved
    assert ast.unparse(calls["vgid.unlearn"]).count("config") == ("vgid.resolve" in calls)


@pytest.mark.parametrize(("row", "known"), [(0, set(METHODS)), (1, set(ATTACKS))], ids=["methods", "attacks"])
def test_names_in_the_table_are_registered(row: int, known: set[str]) -> None:
    names = set(re.findall(r"`(\w+)`", table("What is in it")[row][1]))
    assert len(names) > 5 and names <= known


def test_benchmarks_and_model_families_in_the_table_exist() -> None:
    rows = table("What is in it")
    assert set(rows[2][1].split(", ")) <= {BENCHMARKS.get(name).title for name in BENCHMARKS}
    assert set(rows[4][1].split(", ")) <= {family.name for family in FAMILIES}
    assert all(LINK.search(row[2]) for row in rows)


# -- Results --------------------------------------------------------------------------------------------------------------


def recorded(value: Any) -> Iterator[Figure]:
    """Every value with an interval in a result file: `x` beside `x_ci`, as it is and in percent."""
    if isinstance(value, dict):
        for name, figure in value.items():
            if f"{name}_ci" in value:
                numbers = (figure, *value[f"{name}_ci"])
                yield Figure(*(f"{number:.3f}" for number in numbers))
                yield Figure(*(f"{100 * number:.1f}" for number in numbers))
            yield from recorded(figure)
    elif isinstance(value, list):
        for each in value:
            yield from recorded(each)


def test_at_most_six_rows_each_with_its_number_of_people_and_its_source() -> None:
    rows = table("Results")
    assert 1 <= len(rows) <= 6
    for row in rows:
        assert re.search(r"\d+ people", row[1]) and LINK.search(row[-1]), row
        assert "seed" in row[0] or row[0].startswith("the same "), row


@pytest.mark.parametrize("row", table("Results"), ids=lambda row: row[0][:40])
def test_figures_are_those_of_the_named_files(row: list[str]) -> None:
    figures = [Figure(*found) for cell in row[2:-1] for found in FIGURE.findall(cell)]
    assert len(figures) >= 2
    sources = [ROOT / link for link in LINK.findall(row[-1])]
    known = {figure for path in sources if path.suffix == ".json" for figure in recorded(json.loads(path.read_text("utf-8")))}
    pages = [set(re.findall(r"\d+\.\d+", path.read_text("utf-8"))) for path in sources if path.suffix == ".md"]
    for figure in figures:
        assert figure in known or any({number.strip("−-") for number in figure} <= page for page in pages), figure


def test_results_end_with_one_sentence_of_limits() -> None:
    limits = section("Results").strip().rsplit("\n\n", 1)[1]
    assert sentences(limits) == 1 and "nothing has been measured" in limits


def test_no_speed_is_claimed() -> None:
    assert not re.search(r"step-[\w-]+\.json|\d ?[x×]\b|times (as )?fast|faster", TEXT)


# -- Citation -------------------------------------------------------------------------------------------------------------


def entry(kind: str) -> dict[str, str]:
    """The fields of the README's BibTeX entry of a kind."""
    (found,) = re.findall(rf"@{kind}\{{\w+,\n(.*?)\n\}}", section("Citation"), re.DOTALL)
    return dict(re.findall(r"(\w+)\s*= \{(.*)\}", found))


def test_citation_file_has_what_it_needs() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"cff-version", "message", "type", "title", "authors", "abstract", "keywords", "license", "version", "references"} <= set(
        citation
    )
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_citations_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    (paper,) = citation["references"]
    article, software = entry("article"), entry("software")
    assert article["title"] == paper["title"] and "2606.00105" in article["journal"] and str(paper["year"]) == article["year"]
    assert article["author"] == " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2606.00105", "description": "The arXiv identifier of the paper"}]
    assert (software["title"], software["version"], software["license"]) == (citation["title"], citation["version"], citation["license"])
    assert software["author"] == f"{{{citation['authors'][0]['name']}}}"
