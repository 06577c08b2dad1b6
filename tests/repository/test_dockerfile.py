"""The Dockerfile: its argument, its user, what it leaves out. Its shell lines run here with a `pip` that only records its arguments."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.markdown import ROOT
from tests.repository.linters import lint


class Instruction(NamedTuple):
    """One instruction with its continuation lines joined."""

    name: str
    value: str


def instructions() -> list[Instruction]:
    """All instructions of the Dockerfile, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
    return [Instruction(*line.split(" ", 1)) for line in lines]


def values(name: str) -> list[str]:
    return [each.value for each in instructions() if each.name == name]


def final_stage() -> list[Instruction]:
    """The instructions of the image that is left."""
    every = instructions()
    last = max(number for number, each in enumerate(every) if each.name == "FROM")
    return every[last + 1 :]


def test_hadolint_finds_nothing() -> None:
    lint("hadolint", "Dockerfile")


def test_base_images_have_a_version() -> None:
    images = [value.split(" ")[0] for value in values("FROM")]
    assert images and all(re.fullmatch(r"[a-z/]+:\d[\w.-]+", image) for image in images), images
    assert "latest" not in " ".join(values("FROM"))


def test_the_cpu_build_is_the_default() -> None:
    assert "TORCH=cpu" in values("ARG")


@pytest.mark.parametrize(("torch", "index"), [("cpu", True), ("cuda", False)])
def test_torch_comes_from_its_own_index_for_the_cpu_only(tmp_path: Path, torch: str, index: bool) -> None:
    done, calls = shell(tmp_path, next(value for value in values("RUN") if "TORCH" in value), TORCH=torch)
    (call,) = calls
    assert done == 0 and ("https://download.pytorch.org/whl/cpu" in call) == index
    assert ("torch==" in call) if index else ("-c constraints.txt torch" in call)


def test_another_build_is_refused(tmp_path: Path) -> None:
    assert shell(tmp_path, next(value for value in values("RUN") if "TORCH" in value), TORCH="rocm") == (1, [])


@pytest.mark.parametrize(("extras", "package"), [("", "."), ("tune,sign", ".[tune,sign]")])
def test_extras_are_passed_on(tmp_path: Path, extras: str, package: str) -> None:
    done, (call,) = shell(tmp_path, next(value for value in values("RUN") if "EXTRAS" in value), EXTRAS=extras)
    assert (done, call) == (0, f"install -c constraints.txt {package}")


def test_it_does_not_run_as_root() -> None:
    users = [each.value for each in final_stage() if each.name == "USER"]
    assert users and re.fullmatch(r"[1-9]\d+", users[-1])
    order = [each.name for each in final_stage()]
    assert "RUN" not in order[order.index("USER") :]


def test_the_entry_point_is_the_command_line() -> None:
    assert [json.loads(value) for value in values("ENTRYPOINT")] == [["vgid"]]


def test_no_lists_of_apt_and_no_cache_of_pip_are_left() -> None:
    for command in values("RUN"):
        assert "apt-get" not in command or "rm -rf /var/lib/apt/lists/*" in command
    assert any("PIP_NO_CACHE_DIR=1" in value for value in values("ENV"))
    assert not any("pip" in each.value for each in final_stage() if each.name == "RUN")


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for value in values("COPY") if not value.startswith("--from") for source in value.split()[:-1]}
    assert copied == let_through and all((ROOT / source).exists() for source in copied)


def shell(folder: Path, command: str, **variables: str) -> tuple[int, list[str]]:
    """Run a command as `RUN` does; gives its exit code and the arguments of each call of pip."""
    (folder / "pip").write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n', "utf-8")
    (folder / "pip").chmod(0o755)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)
    calls = folder / "calls"
    return done.returncode, calls.read_text("utf-8").splitlines() if calls.exists() else []
