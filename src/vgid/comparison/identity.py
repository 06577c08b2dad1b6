"""What the result of a run depends on, as digests: a stored run is reused only if all of them are equal."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from vgid.config import RunConfig
from vgid.data.example import Example
from vgid.methods import METHODS, Method
from vgid.processes import default_device
from vgid.results import versions
from vgid.training.fingerprint import files_digest, fingerprint, rows_digest

SHARED_FOLDERS = ("data", "evaluation", "models", "synthetic", "training", "methods/common")
"""Folders with code that every run depends on."""
SHARED_FILES = (
    *("config.py", "instructions.py", "losses.py", "memory.py", "outcome.py", "perturbation.py", "seeds.py"),
    *("settings.py", "texts.py"),
    *("demo/data.py", "demo/practice.py", "methods/base.py", "methods/engine.py"),
)
"""Files with code that every run depends on."""
Identity = Mapping[str, Any]
"""What a result depends on, as it is stored with it."""


def identity(
    config: RunConfig,
    forget: Sequence[Example],
    retain: Sequence[Example],
    model: Any,
    questions: Mapping[str, Sequence[Example]],
) -> dict[str, Any]:
    """Return what the result of a run depends on.

    Args:
        config: settings of the run.
        forget: rows to forget.
        retain: rows to retain.
        model: the model that is trained, before training.
        questions: the splits that are asked afterwards.

    Returns:
        Digests of settings, rows, model and questions, the code that the method runs, the device, and versions of packages.
    """
    return {
        **fingerprint(config, forget, retain, model),
        "questions": rows_digest(row for rows in questions.values() for row in rows),
        **surroundings(config.method.name),
    }


def surroundings(method: str | None = None) -> dict[str, Any]:
    """Return what a result depends on besides settings and data: code, device and versions of packages.

    Args:
        method: the method that runs; None for what no method is part of, such as drawing people.
    """
    return {"code": _code_digest(method), "device": str(default_device()), "versions": versions()}


def _code_digest(method: str | None) -> str:
    """Return a digest of all shared code, and of the method with its base classes; other methods may change without changing it."""
    classes = [each for each in METHODS.get(method).__mro__ if issubclass(each, Method)] if method else []
    built_in = {each.__module__.split(".")[2] for each in classes if each.__module__.startswith("vgid.methods.")}
    installed = {path for each in classes if not each.__module__.startswith("vgid.") for path in _installed_code(each)}
    with as_file(files("vgid")) as root:
        own = {path for name in built_in for path in _method_code(root / "methods", name)}
        return files_digest(sorted({*_shared_code(root), *own, *installed}))


def _method_code(folder: Path, name: str) -> Iterable[Path]:
    """Return the code of a built-in method: a file, or a folder."""
    return (folder / name).rglob("*.py") if (folder / name).is_dir() else [folder / f"{name}.py"]


def _installed_code(kind: type) -> Iterable[Path]:
    """Return the code of another package's method: its file, and the files next to it if it is part of a package."""
    path = Path(inspect.getfile(kind))
    return path.parent.rglob("*.py") if "." in kind.__module__ else [path]


def _shared_code(root: Path) -> Iterable[Path]:
    yield from (root / name for name in SHARED_FILES)
    for folder in SHARED_FOLDERS:
        yield from (root / folder).rglob("*.py")
