"""A bill of materials of the Python environment that made a record: CycloneDX 1.6, as other tools read and check for known weaknesses."""

from __future__ import annotations

import platform
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OWN = canonicalize_name("vgid")
ENVIRONMENT = "environment.cdx.json"
"""Name of its file, in the folder of checks."""


def bill_of_materials() -> dict[str, Any]:
    """List every installed package with its version, its licence, and the packages that it requires.

    It holds no path and no time: the same environment gives the same file.

    Returns:
        A CycloneDX 1.6 object (https://cyclonedx.org/docs/1.6/json/); package URLs name packages.
    """
    found = {canonicalize_name(each.name): each for each in distributions() if each.name}
    references = {name: _reference(name, each) for name, each in found.items()}
    python = {"type": "platform", "bom-ref": "python", "name": platform.python_implementation(), "version": platform.python_version()}
    packages = [_component(name, found[name], references[name]) for name in sorted(found) if name != OWN]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(OWN, found[OWN], references[OWN])},
        "components": [python, *packages],
        "dependencies": [{"ref": references[name], "dependsOn": _required(found[name], references)} for name in sorted(found)],
    }


def _reference(name: str, package: Distribution) -> str:
    return f"pkg:pypi/{name}@{quote(package.version, safe='')}"


def _component(name: str, package: Distribution, reference: str) -> dict[str, Any]:
    """A component as CycloneDX describes it; a licence is stated where the package states it as an SPDX expression."""
    kind = "application" if name == OWN else "library"
    component: dict[str, Any] = {"type": kind, "bom-ref": reference, "name": name, "version": package.version, "purl": reference}
    if "License-Expression" in package.metadata:
        component["licenses"] = [{"expression": package.metadata["License-Expression"]}]
    return component


def _required(package: Distribution, references: dict[Any, str]) -> list[str]:
    """What a package requires here, without its extras, as far as it is installed."""
    required = set()
    for text in package.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            required.add(references.get(canonicalize_name(requirement.name)))
    return sorted(each for each in required if each)
