"""The errors users see: what is wrong, where, what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Self


class VgidError(Exception):
    """Root of every error vgid raises on purpose; each subclass is also the standard library's error of its kind.

    Attributes:
        exit_code: What the command line exits with: 2 for bad usage or bad input, 1 for a run that failed.
    """

    exit_code = 2

    def __init__(
        self, problem: str, *, where: Any = None, expected: str | None = None, got: str | None = None, fix: str | None = None
    ) -> None:
        self.problem, self.where, self.expected, self.got, self.fix = problem, where, expected, got, fix
        head = f"{where}: {problem}" if where else problem
        rest = (("expected", expected), ("found", got), ("fix", fix))
        super().__init__("\n".join([head, *(f"  {name}: {text}" for name, text in rest if text)]))

    @classmethod
    def together(cls, problems: Sequence[VgidError], most: int = 50) -> Self:
        """One error that tells all problems, so that a user can mend a file in one go."""
        if len(problems) == 1 and isinstance(problems[0], cls):
            return problems[0]
        shown = "\n".join(str(problem) for problem in problems[:most])
        more = f"\n... and {len(problems) - most} more" if len(problems) > most else ""
        return cls(f"{len(problems)} problems\n{shown}{more}")


class DataError(VgidError, ValueError):
    """Examples or images that cannot be used."""


class ConfigError(VgidError, ValueError):
    """A recipe, an option or a combination of them that makes no sense."""


class ModelError(VgidError, ValueError):
    """A model folder or a model that cannot be used."""


class OutputError(VgidError, OSError):
    """Results that cannot be written."""


class RunError(VgidError, RuntimeError):
    """A run that started well and failed."""

    exit_code = 1


class StoppedError(RunError):
    """A run that was asked to stop by a signal and kept what it had; shells expect 128 + the signal's number."""

    def __init__(self, problem: str, *, number: int, where: Any = None, fix: str | None = None) -> None:
        super().__init__(problem, where=where, fix=fix)
        self.exit_code = 128 + number


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option most like a name that is not there, if any is near."""
    return next(iter(get_close_matches(name, list(options), n=1, cutoff=0.5)), None)
