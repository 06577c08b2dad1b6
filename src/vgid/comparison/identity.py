"""What a run's result depends on, as digests: it is used again only where all of them are the same."""

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

SHARED = ("data", "evaluation", "models", "training", "methods/common")
"""Folders whose code every run depends on."""
MODULES = ("config.py", "instructions.py", "losses.py", "memory.py", "perturbation.py", "seeds.py", "methods/base.py")
"""Files of which that is true."""
Identity = Mapping[str, Any]


def identity(
    config: RunConfig,
    forget: Sequence[Example],
    retain: Sequence[Example],
    model: Any,
    questions: Mapping[str, Sequence[Example]],
) -> dict[str, Any]:
    """Digests of settings, rows, model and questions; versions, device, and the code that the method runs."""
    return {
        **fingerprint(config, forget, retain, model),
        "questions": rows_digest(row for rows in questions.values() for row in rows),
        **surroundings(config.method.name),
    }


def surroundings(method: str | None = None) -> dict[str, Any]:
    """What does not show in settings and data."""
    return {"code": _code(method), "device": str(default_device()), "versions": versions()}


def _code(method: str | None) -> str:
    """The code of all that is shared, and of the method with those it builds on; a change to another method changes nothing here."""
    line = [each for each in METHODS.get(method).__mro__ if issubclass(each, Method)] if method else []
    ours = {each.__module__.split(".")[2] for each in line if each.__module__.startswith("vgid.methods.")}
    theirs = {path for each in line if not each.__module__.startswith("vgid.") for path in _package(each)}
    with as_file(files("vgid")) as root:
        own = {path for name in ours for path in _files(root / "methods", name)}
        return files_digest(sorted({*_shared(root), *own, *theirs}))


def _files(folder: Path, name: str) -> Iterable[Path]:
    """The code of a method of ours: a file, or a folder."""
    return (folder / name).rglob("*.py") if (folder / name).is_dir() else [folder / f"{name}.py"]


def _package(kind: type) -> Iterable[Path]:
    """The code of another package's method: its file, and those that lie with it where it is part of a package."""
    path = Path(inspect.getfile(kind))
    return path.parent.rglob("*.py") if "." in kind.__module__ else [path]


def _shared(root: Path) -> Iterable[Path]:
    yield from (root / name for name in MODULES)
    for folder in SHARED:
        yield from (root / folder).rglob("*.py")
