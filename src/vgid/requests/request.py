"""The request folder: rows in any format of `vgid data check`, and, if there is one, `request.yaml` with what else is on record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vgid.data.example import Example
from vgid.data.sources import load_examples
from vgid.errors import DataError, nearest

FILE = "request.yaml"
SHORTEST = 3
"""Names and facts of fewer characters are not looked for in `request.yaml`."""


class Request(BaseModel):
    """What a request says of itself. It goes into the record as it stands, so it must name nobody who is to be forgotten.

    Attributes:
        id: opaque, such as a ticket's number.
        received: when it came in.
        due: by when it must be honoured.
        ground: the legal or contractual ground.
        approver: who decided on it, by role or initials.
        scope: opaque reference to what it covers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    received: date | None = None
    due: date | None = None
    ground: str | None = Field(default=None, min_length=1, max_length=400)
    approver: str | None = Field(default=None, min_length=1, max_length=100)
    scope: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")

    @model_validator(mode="after")
    def _in_order(self) -> Request:
        if self.received and self.due and self.due < self.received:
            raise ValueError("due is before received")
        return self


@dataclass(frozen=True)
class Demand:
    """A request as it was read: what it says, its rows, and where it lies."""

    folder: Path
    request: Request
    rows: tuple[Example, ...]


def read_demand(folder: Path) -> Demand:
    """Read a request folder.

    Raises:
        DataError: no such folder, bad rows, or a `request.yaml` that cannot be read or names what is to be forgotten.
    """
    if not folder.is_dir():
        raise DataError("no such request folder", where=folder, expected="a folder with data files", fix="check the path")
    rows = tuple(load_examples(folder))
    request = read_request(folder / FILE)
    _names_nobody(folder / FILE, request, rows)
    return Demand(folder, request, rows)


def read_request(path: Path) -> Request:
    """Read `request.yaml`; a request without one says nothing of itself.

    Raises:
        DataError: with every problem and its line; values are not repeated.
    """
    if not path.is_file():
        return Request()
    try:
        text = path.read_text("utf-8")
        values, lines = yaml.safe_load(text), _lines(text)
    except UnicodeDecodeError:
        raise DataError("the request is not UTF-8", where=path, fix="save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError("the request is no valid YAML", where=f"{path}:{mark.line + 1}" if mark else path) from None
    if values is None:
        return Request()
    if not isinstance(values, dict):
        raise DataError("the request is no mapping", where=f"{path}:1", expected="key: value lines", got=type(values).__name__)
    try:
        return Request(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise DataError.together([_problem(path, lines, each) for each in error.errors(include_url=False, include_input=False)]) from None


def _lines(text: str) -> dict[str, int]:
    """The line of each key."""
    node = yaml.compose(text, yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {key.value: key.start_mark.line + 1 for key, _ in pairs}


def _problem(path: Path, lines: dict[str, int], problem: Any) -> DataError:
    key = str(problem["loc"][0]) if problem["loc"] else "due"
    where = f"{path}:{lines.get(key, 1)}"
    if problem["type"] == "extra_forbidden":
        close = nearest(key, Request.model_fields)
        fix = f"did you mean {close!r}?" if close else None
        return DataError(f"unknown key {key!r}", where=where, expected=", ".join(Request.model_fields), fix=fix)
    expected = "letters, digits and . _ : / -, no spaces" if problem["type"] == "string_pattern_mismatch" else problem["msg"]
    fix = "dates are written 2026-05-31, texts stand in quotes" if problem["type"].endswith("_type") else None
    return DataError(f"{key} cannot be used", where=where, expected=expected, fix=fix)


def _names_nobody(path: Path, request: Request, rows: Sequence[Example]) -> None:
    """Raises DataError where the request tells what is to be forgotten."""
    secrets = {_plain(text) for row in rows for text in (row.subject, *(row.keywords or (row.answer,))) if text}
    secrets = {secret for secret in secrets if len(secret) >= SHORTEST}
    said = {name: f" {_plain(str(value))} " for name, value in request.model_dump(exclude_none=True).items()}
    telling = [name for name, text in said.items() if any(f" {secret} " in text for secret in secrets)]
    if not telling:
        return
    lines = _lines(path.read_text("utf-8"))
    raise DataError.together(
        [
            DataError(
                f"{name} names what is to be forgotten, and would stand in the record",
                where=f"{path}:{lines[name]}",
                expected="an opaque reference",
                fix="name neither people nor facts here",
            )
            for name in telling
        ]
    )


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
