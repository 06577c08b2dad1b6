"""The request folder: rows in any format of `vgid data check` and, where there is one, `request.yaml` with details for the record."""

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
from vgid.reading import LARGEST_YAML, parse_yaml, read_text

FILE = "request.yaml"
LEAST_SEARCHED = 3
"""Characters of the shortest name or fact that is searched for in `request.yaml`; shorter ones would be found by chance. Chosen by hand."""


class RequestDetails(BaseModel):
    """What `request.yaml` states. It is copied into the record as it is, so it must not name anybody who is to be forgotten.

    Attributes:
        id: an opaque name, such as a ticket's number.
        received: day on which the request came in.
        due: day by which it must be honoured.
        ground: the legal or contractual ground.
        approver: who approved it, by role or initials.
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
    def _in_order(self) -> RequestDetails:
        if self.received and self.due and self.due < self.received:
            raise ValueError("due is before received")
        return self


@dataclass(frozen=True)
class ParsedRequest:
    """A request folder as it was read.

    Attributes:
        folder: where it is.
        details: what `request.yaml` states; every field is None where there is no such file.
        rows: what must be forgotten.
    """

    folder: Path
    details: RequestDetails
    rows: tuple[Example, ...]


def parse_request(folder: Path) -> ParsedRequest:
    """Read a request folder.

    Raises:
        DataError: there is no such folder, rows are bad, or `request.yaml` cannot be read or names what is to be forgotten.
    """
    if not folder.is_dir():
        raise DataError("no such request folder", where=folder, expected="a folder with data files", fix="check the path")
    rows = tuple(load_examples(folder))
    details = read_details(folder / FILE)
    _check_opaque(folder / FILE, details, rows)
    return ParsedRequest(folder, details, rows)


def read_details(path: Path) -> RequestDetails:
    """Read `request.yaml`.

    Returns:
        What it states; empty details where there is no file.

    Raises:
        DataError: the file cannot be read; every problem is reported with its line, and no value is repeated.
    """
    if not path.is_file():
        return RequestDetails()
    text = read_text(path, largest=LARGEST_YAML)
    values = parse_yaml(text, path)
    if values is None:
        return RequestDetails()
    if not isinstance(values, dict):
        raise DataError("the request is not a mapping", where=f"{path}:1", expected="key: value lines", got=type(values).__name__)
    lines = _lines(text)
    try:
        return RequestDetails(**{str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise DataError.together([_problem(path, lines, each) for each in error.errors(include_url=False, include_input=False)]) from None


def _lines(text: str) -> dict[str, int]:
    """Return the line number of each key, from 1."""
    node = yaml.compose(text, yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): key.start_mark.line + 1 for key, _ in pairs}


def _problem(path: Path, lines: dict[str, int], problem: Any) -> DataError:
    # The only check of the whole object is that of the two dates; it has no location of its own.
    key = str(problem["loc"][0]) if problem["loc"] else "due"
    where = f"{path}:{lines.get(key, 1)}"
    if problem["type"] == "extra_forbidden":
        close = nearest(key, RequestDetails.model_fields)
        fix = f"did you mean {close!r}?" if close else None
        return DataError(f"unknown key {key!r}", where=where, expected=", ".join(RequestDetails.model_fields), fix=fix)
    expected = "letters, digits and . _ : / -, no spaces" if problem["type"] == "string_pattern_mismatch" else problem["msg"]
    fix = "write dates as 2026-05-31, and texts in quotes" if problem["type"].endswith("_type") else None
    return DataError(f"{key} cannot be used", where=where, expected=expected, fix=fix)


def _check_opaque(path: Path, details: RequestDetails, rows: Sequence[Example]) -> None:
    """Raise `DataError` where `request.yaml` contains a subject, a keyword or an answer of the rows."""
    secrets = {_words(text) for row in rows for text in (row.subject, *(row.keywords or (row.answer,))) if text}
    secrets = {secret for secret in secrets if len(secret) >= LEAST_SEARCHED}
    # Spaces on both sides, so that only whole words are found.
    values = {name: f" {_words(str(value))} " for name, value in details.model_dump(exclude_none=True).items()}
    revealing = [name for name, text in values.items() if any(f" {secret} " in text for secret in secrets)]
    if not revealing:
        return
    lines = _lines(read_text(path, largest=LARGEST_YAML))
    raise DataError.together(
        [
            DataError(
                f"{name} names what is to be forgotten, and the record would repeat it",
                where=f"{path}:{lines[name]}",
                expected="an opaque reference",
                fix="name neither people nor facts here",
            )
            for name in revealing
        ]
    )


def _words(text: str) -> str:
    """Return the words of a text in lower case, one space apart, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
