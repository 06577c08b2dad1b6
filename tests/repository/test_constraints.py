"""The packages that were tested, with and without the digests of their files."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.markdown import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
TESTED = {canonicalize_name(name): version for name, version in PIN.findall((ROOT / "constraints.txt").read_text("utf-8"))}
HASHED = (ROOT / "constraints-hashes.txt").read_text("utf-8")


def test_every_package_that_users_need_is_pinned_with_digests() -> None:
    needed = {canonicalize_name(Requirement(each).name) for each in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["demo"]]}
    assert needed <= {canonicalize_name(name) for name, _ in PIN.findall(HASHED)}
    entries = HASHED.replace("\\\n", "").splitlines()
    assert len(entries) == len(PIN.findall(HASHED)) and all(re.search(r"( +--hash=sha256:[0-9a-f]{64})+$", each) for each in entries)


def test_the_versions_are_those_that_were_tested() -> None:
    pinned = [(canonicalize_name(name), version) for name, version in PIN.findall(HASHED)]
    assert [each for each in pinned if TESTED.get(each[0], each[1]) != each[1]] == []


def test_what_was_tested_lies_in_the_ranges() -> None:
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert TESTED[canonicalize_name(requirement.name)] in requirement.specifier, requirement.name
