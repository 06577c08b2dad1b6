"""The errors users see: the problem, its place, what was expected, what was found, and what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Write control characters, overrides of direction and lone surrogates as escapes such as `\\x1b`; line breaks stay.

    File names and data come from elsewhere; what they hold must not move a terminal's cursor, or stop a message from being printed.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its class's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class VgidError(Exception):
    """Base class of all errors that vgid raises on purpose; each subclass is also the matching built-in error.

    Messages never repeat the user's data: those may be what somebody wants forgotten.

    Args:
        problem: what is wrong, in one phrase.
        where: place of the problem, such as `file:line` or the name of a setting.
        expected: what would have been right.
        got: what was found instead.
        fix: what to do.

    Attributes:
        exit_code: exit status of the command line: 2 for bad usage or bad input, 1 for a run that failed.
    """

    exit_code = 2

    def __init__(
        self, problem: str, *, where: Any = None, expected: str | None = None, got: str | None = None, fix: str | None = None
    ) -> None:
        if where is not None:
            where = str(where).replace("\n", "\\n")  # a file's name may hold one
        self.problem, self.where, self.expected, self.got, self.fix = problem, where, expected, got, fix
        head = f"{where}: {problem}" if where else problem
        rest = (("expected", expected), ("found", got), ("fix", fix))
        super().__init__(printable("\n".join([head, *(f"  {name}: {text}" for name, text in rest if text)])))

    @classmethod
    def together(cls, problems: Sequence[VgidError], most: int = 20) -> Self:
        """Join several problems into one error, so that a user can correct a file in one go.

        Args:
            problems: at least one error.
            most: largest number of errors in the message; the others are counted.

        Returns:
            The error itself where there is only one.
        """
        if len(problems) == 1 and isinstance(problems[0], cls):
            return problems[0]
        shown = "\n".join(str(problem) for problem in problems[:most])
        more = f"\n... and {len(problems) - most} more" if len(problems) > most else ""
        return cls(f"{len(problems)} problems\n{shown}{more}")


class DataError(VgidError, ValueError):
    """Examples or images that cannot be used."""


class ConfigError(VgidError, ValueError):
    """A recipe, an option or a combination of them that is not valid."""


class ModelError(VgidError, ValueError):
    """A model folder or a model that cannot be used."""


class OutputError(VgidError, OSError):
    """Results that cannot be written."""


class RunError(VgidError, RuntimeError):
    """A run that started well and failed."""

    exit_code = 1


class StoppedError(RunError):
    """A run that a signal stopped and that kept its state; the exit status is 128 + the signal's number, as shells expect."""

    def __init__(self, problem: str, *, number: int, where: Any = None, fix: str | None = None) -> None:
        super().__init__(problem, where=where, fix=fix)
        self.exit_code = 128 + number


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a disk that end a run: nothing is wrong with the input."""


def cannot_write(path: str | Path, error: Exception, what: str = "file", got: str | None = None, fix: str = "") -> OutputError:
    """Return the error for something that cannot be written; its exit code is 1 where the disk is full or broken, so that the run failed.

    Args:
        path: what was to be written.
        error: what the system or safetensors said.
        what: what it is called.
        got: what is there instead.
        fix: what to do; empty for freeing space.

    Returns:
        The error, to be raised.
    """
    number = error.errno if isinstance(error, OSError) else errno.ENOSPC
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
    told = OutputError(
        f"cannot write the {what}: {reason}",
        where=str(path),
        expected="a folder that can be written to, with space left",
        got=got,
        fix=fix or "free space on the disk, or choose another output folder",
    )
    told.exit_code = RunError.exit_code if number in FULL else told.exit_code
    return told


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option that is most similar to a misspelt name, or None where none is.

    Similarity is difflib's ratio of matching characters. The cutoff, 0.5, was chosen by hand.
    """
    return next(iter(get_close_matches(name, list(options), n=1, cutoff=0.5)), None)
