"""Other packages' methods, attacks and benchmarks: the package of docs/extend.md, written out, found and run; and broken ones."""

import json
import logging
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import example
from tests.docs.markdown import ROOT, blocks
from vgid.attacks import ATTACKS
from vgid.benchmarks import BENCHMARKS
from vgid.commands import app
from vgid.comparison.identity import surroundings
from vgid.data.writing import write_examples
from vgid.errors import ConfigError
from vgid.methods import METHODS
from vgid.methods.catalogue import catalogue

PAGE = {block.title: block.text for block in blocks(ROOT / "docs" / "extend.md") if block.title}
GROUPS = tomllib.loads(PAGE["pyproject.toml"])["project"]["entry-points"]


def install(folder: Path, name: str, groups: Mapping[str, Mapping[str, str]], files: Mapping[str, str]) -> None:
    """Lay a package down as an installer would: its modules, and a .dist-info beside them."""
    info = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()) for group, points in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages, on the path for as long as the test runs."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in [
        each for each in sys.modules if each not in before and str(getattr(sys.modules[each], "__file__", "")).startswith(str(folder))
    ]:
        del sys.modules[name]


@pytest.fixture
def more(site: Path) -> Path:
    """The package of the documentation."""
    install(site, "vgid-more", GROUPS, {name: text for name, text in PAGE.items() if name.startswith("vgid_more/")})
    return site


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_examples(tmp_path / "data" / "forget.jsonl", [example(n) for n in range(3)])
    write_examples(tmp_path / "data" / "retain.jsonl", [example(n, answer=f"This is number {n}.") for n in range(10, 13)])
    return tmp_path / "data"


def run(*arguments: object) -> str:
    """The command line in this process; what it prints."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_the_page_defines_all_that_it_offers() -> None:
    assert set(GROUPS) == {"vgid.methods", "vgid.attacks", "vgid.benchmarks"}
    modules = {value.partition(":")[0].replace(".", "/") + ".py" for points in GROUPS.values() for value in points.values()}
    assert modules == {name for name in PAGE if name.endswith(".py")}


def test_nothing_is_imported_before_it_is_asked_for(more: Path) -> None:
    assert METHODS.get("npo") and "vgid_more.labels" not in sys.modules
    with pytest.raises(ConfigError, match="did you mean 'random_labels'"):
        METHODS.get("random_label")
    assert "vgid_more.labels" not in sys.modules
    assert METHODS.get("random_labels").__name__ == "RandomLabels" and "vgid_more.capitals" not in sys.modules


def test_a_method(more: Path, random_folder: Path, data: Path, tmp_path: Path) -> None:
    row = next(row for row in catalogue() if row["name"] == "random_labels")
    assert row["package"] == "vgid-more 0.1" and row["settings"] == ["retain_weight", "retain_loss", "salt"]
    files = ("--model", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl", "--out", tmp_path / "out")
    quick = ("--set", "training.steps=2", "--set", "validation.every=0", "--max-rows", 0, "--allow-unknown")
    results = json.loads(run("unlearn", *files, *quick, "--method", "random_labels", "--set", "method.salt=1", "--json"))
    assert results["method"] == "random_labels" and results["config"]["method"]["salt"] == 1
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()


def test_a_comparison_looks_at_the_code_of_the_package(more: Path) -> None:
    before = surroundings("random_labels")["code"]
    assert before == surroundings("random_labels")["code"] != surroundings("npo")["code"]
    with (more / "vgid_more" / "labels.py").open("a") as file:
        file.write("# changed\n")
    assert surroundings("random_labels")["code"] != before


def test_the_command_line_knows_it(more: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "vgid", "methods"], env=_path(more), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "random_labels" in done.stdout and "package vgid-more 0.1" in done.stdout


def test_an_attack(more: Path, random_folder: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(PAGE["policy.yaml"].replace("paraphrase", "cross_modal"))
    files = ("--model", random_folder, "--base", random_folder, "--forget", data / "forget.jsonl", "--retain", data / "retain.jsonl")
    results = json.loads(run("audit", *files, "--policy", tmp_path / "policy.yaml", "--json"))
    attack = results["attacks"]["capitals"]
    assert attack["budget"] == {"politely": True} and attack["levels"]["capitals"]["recovered"].keys() >= {"base", "audited"}
    assert "capitals" in ATTACKS and ATTACKS.package("capitals") == "vgid-more 0.1"


def test_a_benchmark(more: Path, random_folder: Path, data: Path) -> None:
    options = ("--benchmark", "folder", "--data", data, "--protocol", "max_new_tokens=2", "--model", random_folder, "--json")
    results = json.loads(run("evaluate", *options))
    assert results["questions"] == 6 and results["deviations"] == {"max_new_tokens": 2}
    assert {figure["split"] for figure in results["figures"]["unlearned"]} == {"forget", "retain"}
    assert json.loads(run("data", "check", data, "--benchmark", "folder", "--json"))["splits"]["forget"]["rows"] == 3
    assert "folder" in BENCHMARKS


BROKEN = {
    "missing": ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
    "syntax": ("def", "SyntaxError"),
    "raises": ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
    "empty": ("", "AttributeError"),
    "other": ("Thing = 3", "not a class derived from vgid.methods.base.Method"),
    "bare": ("from vgid.methods import Method\nclass Thing(Method): pass", "Config is not set"),
    "kind": (
        "from pydantic import BaseModel\nfrom vgid.methods import Method\nclass Thing(Method):\n    Config = BaseModel\n    kind = 'magic'",
        "kind is not one of 'trained', 'edit', 'inference', 'reference'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named_and_hides_nothing(
    name: str, more: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = BROKEN[name]
    install(more, f"broken-{name}", {"vgid.methods": {f"a_{name}": f"broken_{name}:Thing"}}, {f"broken_{name}.py": code})
    with pytest.raises(ConfigError) as error:
        METHODS.get(f"a_{name}")
    assert f"the package broken-{name} 0.1 " in str(error.value) and message in str(error.value)
    assert f"vgid.methods: a_{name} = broken_{name}:Thing" in str(error.value)
    monkeypatch.setattr(logging.getLogger("vgid"), "propagate", True)
    rows = [row["name"] for row in catalogue()]
    assert "random_labels" in rows and "npo" in rows and f"a_{name}" not in rows
    assert f"broken-{name} 0.1" in caplog.text
    told = len(caplog.records)
    assert list(METHODS) and len(caplog.records) == told


def test_names_that_are_taken(more: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("vgid"), "propagate", True)
    install(more, "usurper", {"vgid.methods": {"npo": "usurper:Thing", "random_labels": "usurper:Thing"}}, {"usurper.py": "Thing = 1"})
    assert METHODS.get("npo").__module__ == "vgid.methods.npo" and METHODS.package("npo") is None
    with pytest.raises(ConfigError, match="offered more than once"):
        METHODS.get("random_labels")
    names = list(METHODS)
    assert names.count("npo") == 1 and "random_labels" not in names and "usurper" not in sys.modules
    assert "usurper 0.1 offers a method 'npo', which vgid has itself" in caplog.text


def test_a_benchmark_bears_the_name_it_is_offered_under(more: Path) -> None:
    install(more, "renamed", {"vgid.benchmarks": {"other": "vgid_more.folder:Folder"}}, {})
    with pytest.raises(ConfigError, match="its name is 'folder'"):
        BENCHMARKS.get("other")
    assert "folder" in BENCHMARKS


def _path(site: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}
