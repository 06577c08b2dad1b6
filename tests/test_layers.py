"""Packages come in one order, and every import goes down: no circle of files or of packages, wherever the import stands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vgid

ROOT = Path(vgid.__file__).parent
ORDER = (
    ("errors",),
    ("curves", "reading"),
    ("run_folder",),
    ("registry", "seeds", "artifacts", "limits", "processes", "progress", "texts"),
    ("settings", "losses", "memory", "instructions", "recipes"),
    ("data",),
    ("models", "perturbation"),
    ("evaluation",),
    ("methods", "outcome", "synthetic"),
    ("config",),
    ("settings_reference", "training"),
    ("checks", "model_card", "report", "results"),
    ("unlearning",),
    ("attacks",),
    ("enrichment", "formats", "metrics"),
    ("auditing", "benchmarks", "deployment", "finetuning", "pushing", "utility", "verify_served"),
    ("benchmarking", "demo", "inspector"),
    ("comparison", "experiments", "requests"),
    ("commands",),
    ("__init__", "__main__"),
)
"""Modules and packages of vgid, lowest first; those on one level do not know each other."""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def modules() -> dict[str, Path]:
    """All modules by dotted name; a package's `__init__` has the package's name, that of vgid itself is `vgid.__init__`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("vgid", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[str]:
    """Modules of vgid that a module imports, anywhere: inside functions and under `TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: relative import"
            names = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        for name in names:
            while name.startswith("vgid.") and name not in MODULES:
                name = name.rpartition(".")[0]
            if name.startswith("vgid.") and name != module:
                yield name


def package(module: str) -> str:
    return module.split(".")[1]


GRAPH = {module: frozenset(imports(module)) for module in MODULES}


def test_every_module_has_a_level() -> None:
    assert {package(module) for module in MODULES} == set(LEVEL)


@pytest.mark.parametrize("name", [name for names in ORDER for name in names])
def test_imports_go_down(name: str) -> None:
    up = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if package(module) == name and package(other) != name and LEVEL[package(other)] >= LEVEL[name]
    ]
    assert not up


def test_no_circle_of_files() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in done:
            for other in sorted(GRAPH[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_an_import_that_goes_up_would_be_noticed() -> None:
    assert "vgid.config" in GRAPH["vgid.training.fit"] and LEVEL["config"] < LEVEL["training"]
    assert "vgid.unlearning" in GRAPH["vgid.commands.unlearn"]  # stands inside a function
    assert "vgid.config" in GRAPH["vgid.commands.options"]  # stands under TYPE_CHECKING
