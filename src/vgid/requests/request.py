"""The request folder: rows in any format of `vgid data check`, bare pictures, and `request.yaml` with details, where there is one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vgid.data.example import Example
from vgid.data.pictures import bare_pictures
from vgid.data.sources import READERS, load_examples
from vgid.enrichment.wordings import relation_of
from vgid.errors import DataError, nearest
from vgid.reading import LARGEST_YAML, parse_yaml, read_text
from vgid.requests.keys import Key
from vgid.settings import DataConfig

FILE = "request.yaml"
NOT_READ = (".yml", ".yaml")
"""Endings, in lower case, by which somebody may have meant `FILE`."""
BARE = "the person"
"""Subject of bare pictures."""
PRIVATE = {"name", "scope", "turns", "image_root"}
"""Keys of `request.yaml` that are not copied: those that may name people and facts, and those that say how rows are read."""
LEAST_SEARCHED = 3
"""Characters of the shortest name or fact that is searched for in `request.yaml`; shorter ones would be found by chance. Chosen by hand."""


Thing = Literal["person", "object", "character", "logo", "harm"]
"""What rows can be about. Only people have names that are masked, and facts that can be asked by name."""


class RequestDetails(BaseModel):
    """What `request.yaml` states. `PRIVATE` keys stay in the run's folder; all others are copied into the record as they are, so that they
    must not name anybody who is to be forgotten.

    Attributes:
        id: an opaque name, such as a ticket's number.
        received: day on which the request came in.
        due: day by which it must be honoured.
        ground: the legal or contractual ground.
        approver: who approved it, by role or initials.
        reference: opaque reference to what it covers.
        kind: what the rows are about.
        name: the person's name, or names by subject, so that facts can be asked by name.
        scope: what must be forgotten, where it is not everything: ids, tags, keywords of rows, or relations such as `phone`. The other rows
            are kept.
        turns: how conversations among the rows are read, as the setting `data.turns`; None takes that of the run.
        image_root: the folder that image paths are relative to and must stay in, itself relative to the request's folder; None takes that
            of the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    received: date | None = None
    due: date | None = None
    ground: str | None = Field(default=None, min_length=1, max_length=400)
    approver: str | None = Field(default=None, min_length=1, max_length=100)
    reference: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")
    kind: Thing = "person"
    name: str | dict[str, str] | None = None
    scope: list[str] | None = Field(default=None, min_length=1)
    turns: Literal["last", "all"] | None = None
    image_root: str | None = Field(default=None, min_length=1)

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
        kept: rows outside the scope, which must stay.
        bare: pictures without any rows, one row each without question and answer: what the model says of them must be forgotten.
        reading: how the rows were read, with the folder of pictures as an absolute path.
    """

    folder: Path
    details: RequestDetails
    rows: tuple[Example, ...]
    kept: tuple[Example, ...] = ()
    bare: tuple[Example, ...] = ()
    reading: DataConfig = field(default_factory=DataConfig)

    @property
    def everything(self) -> tuple[Example, ...]:
        """All that the folder holds, for commitments."""
        return (*self.rows, *self.kept, *self.bare)

    def id_by(self, key: Key) -> str:
        """Return the id that `request.yaml` states, or one made from the rows."""
        return self.details.id or f"request-{key.rows(self.everything)[:12]}"


def parse_request(folder: Path, reading: DataConfig | None = None) -> ParsedRequest:
    """Read a request folder.

    Args:
        folder: the folder.
        reading: how its rows are read where `request.yaml` does not say; None for the defaults.

    Returns:
        Details, rows to forget, and rows to keep.

    Raises:
        DataError: there is no such folder, rows are bad, or `request.yaml` cannot be read or names what is to be forgotten.
    """
    if not folder.is_dir():
        raise DataError("no such request folder", where=folder, expected="a folder with data files", fix="check the path")
    details = read_details(folder / FILE)
    has_rows = any(path.suffix.lower() in READERS for path in folder.rglob("*"))
    bare = () if has_rows else _bare_rows(folder)
    chosen = _reading(folder, details, reading or DataConfig())
    rows = () if bare else tuple(load_examples(folder, turns=chosen.turns, image_root=chosen.image_root))
    _check_opaque(folder / FILE, details, rows)
    rows, kept = _in_scope(folder / FILE, details.scope, rows)
    return ParsedRequest(folder, details, rows, kept, bare, chosen)


def _reading(folder: Path, details: RequestDetails, given: DataConfig) -> DataConfig:
    """How rows are read: as `request.yaml` says, else as the run does; with an absolute path, since the run's place is not ours.

    Raises:
        DataError: there is no such folder of pictures.
    """
    root = folder / details.image_root if details.image_root else Path(given.image_root) if given.image_root else None
    if root is not None and not root.is_dir():
        raise DataError(
            "there is no such folder of pictures",
            where=folder / FILE if details.image_root else "data.image_root",
            expected="image_root: a folder, relative to the request's" if details.image_root else "a folder",
            fix="check the path",
        )
    return DataConfig(turns=details.turns or given.turns, image_root=None if root is None else str(root.resolve()))


def _bare_rows(folder: Path) -> tuple[Example, ...]:
    """One row for each picture of a folder without data files; all show the same person.

    Raises:
        DataError: a picture cannot be used; all problems together.
    """
    found = enumerate(bare_pictures(folder), 1)
    return tuple(Example(f"picture-{n}", "", "", (image,), BARE, where=image.path.name if image.path else "") for n, image in found)


def _in_scope(path: Path, scope: Sequence[str] | None, rows: tuple[Example, ...]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide rows into those that a scope names and the others.

    Raises:
        DataError: an entry of the scope names no row.
    """
    if scope is None:
        return rows, ()
    found: dict[str, set[str]] = {row.id: _labels(row) for row in rows}
    unused = [place for place, entry in enumerate(scope, 1) if not any(_words(entry) in labels for labels in found.values())]
    if unused:
        relations = sorted({relation for row in rows if (relation := relation_of(row.question))})
        raise DataError(
            f"entry {', '.join(map(str, unused))} of the scope fits no row",
            where=f"{path}:{_lines(path.read_text('utf-8'))['scope']}",
            expected=f"ids, tags or keywords of rows, or relations (here: {', '.join(relations) or 'none'})",
            fix="a reference to what the request covers has the key `reference`",
        )
    wanted = {_words(entry) for entry in scope}
    return tuple(row for row in rows if found[row.id] & wanted), tuple(row for row in rows if not found[row.id] & wanted)


def _labels(row: Example) -> set[str]:
    """Everything by which a scope may name a row."""
    return {_words(text) for text in (row.id, *row.tags, *row.keywords, relation_of(row.question) or "") if text}


def read_details(path: Path) -> RequestDetails:
    """Read `request.yaml`.

    Returns:
        What it states; empty details where there is no file.

    Raises:
        DataError: the file cannot be read; every problem is reported with its line, and no value is repeated.
    """
    if not os.path.lexists(path):
        _check_other_name(path)
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


def _check_other_name(path: Path) -> None:
    """Details under another name would be left out in silence, and with them what is to be kept.

    Raises:
        DataError: there is such a file.
    """
    other = next((each for each in path.parent.glob("*") if each.stem.lower() == path.stem and each.suffix.lower() in NOT_READ), None)
    if other is not None:
        raise DataError("the request's details have another name", where=other, expected=path.name, fix="rename the file")


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
    if key == "scope" and problem["type"] == "list_type":
        fix = "list what must be forgotten; a reference to what the request covers has the key `reference`"
        return DataError("scope cannot be used", where=where, expected="a list, such as [phone, address]", fix=fix)
    expected = "letters, digits and . _ : / -, no spaces" if problem["type"] == "string_pattern_mismatch" else problem["msg"]
    fix = "write dates as 2026-05-31, and texts in quotes" if problem["type"].endswith("_type") else None
    return DataError(f"{key} cannot be used", where=where, expected=expected, fix=fix)


def _check_opaque(path: Path, details: RequestDetails, rows: Sequence[Example]) -> None:
    """Raise `DataError` where `request.yaml` contains a subject, a keyword or an answer of the rows."""
    names = [details.name] if isinstance(details.name, str) else [text for pair in (details.name or {}).items() for text in pair]
    secrets = {_words(text) for row in rows for text in (row.subject, *(row.keywords or (row.answer,))) if text} | set(map(_words, names))
    secrets = {secret for secret in secrets if len(secret) >= LEAST_SEARCHED}
    # Spaces on both sides, so that only whole words are found.
    stated = details.model_dump(exclude_none=True, exclude=PRIVATE)
    values = {name: f" {_words(str(value))} " for name, value in stated.items()}
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
