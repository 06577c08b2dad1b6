"""Files that somebody may have damaged or made up: whatever is in them, the result is a value or one `VgidError`.

Every JSON or YAML file of a run, a record, a policy or a request is read here, so that each kind of damage is caught at one place.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from vgid.errors import DataError, VgidError

LARGEST = 64 * 2**20
"""Bytes of the largest file that is read: 64 MiB, far more than any of these files needs."""
LARGEST_YAML = 2**20
"""Bytes of the largest YAML file, whose parser takes some 100 times as long as that of JSON."""
DEEPEST = 60
"""Levels of lists and mappings inside each other."""
MOST_VALUES = 2_000_000
"""Values in a file; aliases in YAML count each time, so that a few lines cannot stand for billions."""
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON and YAML may hold and UTF-8 may not."""

_NAMES = re.compile(r"'[^'<\\]{2,}'")
"""Names in messages of PyYAML, of aliases and tags: they come from the file, and may be anybody's."""


class _TwiceError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Once(yaml.SafeLoader):
    """A loader that refuses a key which stands in a mapping twice: PyYAML keeps the last value, in silence.

    It also refuses what is nested too deeply, before the parser takes seconds for it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Parse a node and what is in it.

        Raises:
            RecursionError: it is nested too deeply.
        """
        self._depth += 1
        if self._depth > DEEPEST:
            raise RecursionError
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping.

        Raises:
            _TwiceError: a key stands in it twice.
        """
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise _TwiceError(key.start_mark.line + 1)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def check_text(text: str, error: type[VgidError] = DataError) -> None:
    """Make sure that a text, such as an argument, can be a path and can be written to a file.

    Raises:
        VgidError: of the type given: it has a null byte, or bytes that are not UTF-8.
    """
    if "\0" in text:
        raise error("a text has a null byte", expected="text", got="a null byte", fix="leave the null byte out")
    if _HALF.search(text):
        raise error("a text is not valid Unicode", expected="text in UTF-8", got="other bytes", fix="rename the file, or correct the text")


def read_text(path: Path, error: type[VgidError] = DataError, *, largest: int = LARGEST) -> str:
    """Read a text file in UTF-8.

    Args:
        path: the file.
        error: the error to raise.
        largest: bytes that it may have, at most.

    Raises:
        VgidError: of the type given: there is no such file, it is not a plain file, it cannot be read, is too large or not UTF-8.
    """
    try:
        # Not opened by name first: opening a pipe without a writer would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise error("not a plain file", where=str(path), expected="a file", fix="check the path")
            if status.st_size > largest:
                raise error("the file is too large", where=str(path), expected=f"at most {largest:,} bytes", got=f"{status.st_size:,}")
            content = file.read()
    except FileNotFoundError:
        raise error("no such file", where=str(path), fix="check the path") from None
    except ValueError as invalid:
        if isinstance(invalid, VgidError):
            raise
        raise error("the path has a null byte", expected="a path", fix="check the path") from None
    except OSError as refused:
        if isinstance(refused, VgidError):
            raise
        raise error(f"cannot read the file: {refused.strerror or refused}", where=str(path), fix="check its permissions") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        raise error("the file is not UTF-8", where=f"{path}:{line}", fix="save it as UTF-8") from None


def read_json(path: Path, error: type[VgidError] = DataError) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file.
        error: the error to raise.

    Returns:
        The object; all numbers are finite, and all texts can be written as UTF-8.

    Raises:
        VgidError: of the type given: the file cannot be read, or holds something else; no value is repeated.
    """
    return parse_json(read_text(path, error), path, error)


def parse_json(text: str, where: object, error: type[VgidError] = DataError) -> dict[str, Any]:
    """Parse JSON text as `read_json` does.

    Args:
        text: the JSON.
        where: its place, for the message.
        error: the error to raise.

    Raises:
        VgidError: of the type given.
    """
    try:
        values = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as wrong:
        raise error("the file is not valid JSON", where=f"{where}:{wrong.lineno}", got=wrong.msg, fix="restore it") from None
    except RecursionError:
        raise error("the file is nested too deeply", where=str(where), expected=f"at most {DEEPEST} levels", fix="restore it") from None
    except ValueError:
        raise error("the file has a number that is not finite, or too long", where=str(where), fix="restore it") from None
    if not isinstance(values, dict):
        raise error("the file does not hold an object", where=str(where), expected="{...}", got=type(values).__name__)
    _check_size(values, where, error)
    return values


def read_yaml(path: Path, error: type[VgidError] = DataError) -> Any:
    """Read a YAML file.

    Args:
        path: the file.
        error: the error to raise.

    Returns:
        What it holds.

    Raises:
        VgidError: of the type given: the file cannot be read, or is not YAML; no value is repeated.
    """
    return parse_yaml(read_text(path, error, largest=LARGEST_YAML), path, error)


def parse_yaml(text: str, where: object, error: type[VgidError] = DataError) -> Any:
    """Parse YAML text as `read_yaml` does.

    Args:
        text: the YAML.
        where: its place, for the message.
        error: the error to raise.

    Raises:
        VgidError: of the type given.
    """
    place = str(where)
    try:
        values = yaml.load(text, _Once)
    except RecursionError:
        raise error("the YAML is nested too deeply", where=place, expected=f"at most {DEEPEST} levels", fix="correct the file") from None
    except _TwiceError as twice:
        raise error("a key stands here twice", where=f"{place}:{twice.line}", expected="every key once", fix="take one out") from None
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        got = getattr(wrong, "problem", None) or "a character that YAML does not allow"
        got = _NAMES.sub("…", got.removeprefix("found "))
        raise error("not valid YAML", where=f"{place}:{mark.line + 1}" if mark else place, got=got, fix="correct the line") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError):  # what PyYAML lets through, such as for 2026-13-45
        raise error("the YAML has a date or a number that does not exist", where=place, fix="write dates as 2026-05-31") from None
    _check_size(values, where, error)
    return values


def _check_size(values: Any, where: object, error: type[VgidError]) -> None:
    """Walk through lists and mappings one level at a time, without recursion."""
    level, seen = [values], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                if _HALF.search(value):
                    raise error("the file has half a character (a lone surrogate)", where=str(where), fix="correct the text")
            elif isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set):
                below += value
            seen += 1
            if len(below) + seen > MOST_VALUES:
                raise error("the file holds too many values", where=str(where), expected=f"at most {MOST_VALUES:,}")
        if not below:
            return
        level = below
    raise error("the file is nested too deeply", where=str(where), expected=f"at most {DEEPEST} levels", fix="restore or correct it")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value
