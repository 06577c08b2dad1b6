"""What a stored run depends on."""

from tests.test_layers import GRAPH, MODULES, ROOT, package
from vgid.comparison.identity import _shared_code

PLUMBING = {"artifacts", "curves", "errors", "limits", "processes", "progress", "reading", "recipes", "registry", "run_folder"}
"""Packages that no result depends on, except through settings, which are part of a run's identity themselves."""


def test_all_code_that_trains_and_asks_is_part_of_the_identity() -> None:
    found: set[str] = set()
    new = {"vgid.training.fit", "vgid.evaluation.evaluate", "vgid.synthetic.splits"}
    while new:
        found |= new
        new = {other for module in new for other in GRAPH[module] if other.startswith("vgid.") and other in MODULES} - found
    covered = set(_shared_code(ROOT))
    # A method's own code is digested for the runs of that method only.
    shared = {module for module in found if not module.startswith("vgid.methods") or module.startswith("vgid.methods.common")}
    assert not {module for module in shared if package(module) not in PLUMBING and MODULES[module] not in covered}
    assert MODULES["vgid.methods.base"] in covered and MODULES["vgid.methods.ga"] not in covered
    assert {MODULES["vgid.demo.data"], MODULES["vgid.demo.practice"]} <= covered  # they write a seed's rows
