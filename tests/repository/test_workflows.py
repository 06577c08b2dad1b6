"""Workflows and commit hooks: least permissions, limits, pinned actions, and commands that exist."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.markdown import ROOT
from tests.repository.linters import lint

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def workflow(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8")))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def test_both_workflows_are_there() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "wheels.yml"]


def test_they_follow_the_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))


def test_the_citation_follows_the_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.citation-file-format", "CITATION.cff")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends_in_time(path: Path) -> None:
    content = workflow(path)
    assert content["permissions"] == {"contents": "read"} and "group" in content["concurrency"]
    for job in content["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 60 and "latest" not in job["runs-on"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_keep_no_token(path: Path) -> None:
    used = [step for step in steps(path) if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in used)
    checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


def test_ci_runs_the_same_script_on_every_supported_python() -> None:
    job = workflow(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]
    supported = [entry.rsplit(" ", 1)[1] for entry in PROJECT["classifiers"] if entry.startswith("Programming Language :: Python :: 3.")]
    assert job["strategy"]["matrix"]["python"] == supported
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_wheels_are_used_in_an_empty_environment_and_kept() -> None:
    every = steps(ROOT / ".github/workflows/wheels.yml")
    commands = "\n".join(step.get("run", "") for step in every)
    assert all(word in commands for word in ("python -m build", "dist/*.whl", "vgid --version", "vgid methods"))
    assert every[-1]["uses"].startswith("actions/upload-artifact@")


def test_extras_in_workflows_exist() -> None:
    for path in WORKFLOWS:
        assert set(re.findall(r"\.\[(\w+)\]", path.read_text("utf-8"))) <= set(PROJECT["optional-dependencies"])


def test_commit_hooks_need_nothing_from_elsewhere() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert {"ruff", "ruff-format", "mypy", "trailing-whitespace", "end-of-file"} <= set(hooks)
    tools = {re.split(r"[><=]", name)[0] for name in PROJECT["optional-dependencies"]["dev"]}
    for hook in hooks.values():
        if hook["language"] == "system":
            command = hook["entry"].split()[0]
            assert command.startswith(".venv/bin/") and Path(command).name in tools
        else:
            assert hook["language"] == "pygrep" and re.compile(hook["entry"])


@pytest.mark.parametrize(
    ("hook", "bad", "good"),
    [
        ("trailing-whitespace", "a \n", "a\n"),
        ("end-of-file", "a", "a\n"),
        ("end-of-file", "a\n\n", "a\n\nb\n"),
        ("carriage-return", "a\r\n", "a\n"),
        ("merge-conflict", "<<<<<<< HEAD\n", "=======\n"),
    ],
)
def test_whitespace_hooks_find_what_they_name(hook: str, bad: str, good: str) -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    (pattern,) = (re.compile(each["entry"], re.MULTILINE) for each in repository["hooks"] if each["id"] == hook)
    assert pattern.search(bad) and not pattern.search(good)
