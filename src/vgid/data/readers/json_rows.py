"""JSON: one object on each line, or one array of objects; plain or compressed by gzip."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from vgid.data.problems import at
from vgid.data.readers.base import MOST_BYTES, Rows, failing
from vgid.errors import DataError

SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz")
PIECE = 2**20
"""Characters that are read at once from an array."""
MALFORMED = "malformed JSON"
_SPACE = " \t\r\n"


def rows(file: Path) -> Rows:
    """Read a file; an array is one where the first character is a bracket.

    Raises:
        DataError: the file cannot be unpacked or read, or is one object over several lines.
    """
    try:
        with _opened(file) as stream:
            if file.name.lower().endswith((".json", ".json.gz")) and _is_one_object(stream.read(PIECE)):
                raise DataError(
                    "the file is one object over several lines",
                    where=file,
                    expected="an array of rows, or one row on each line",
                    fix="write the list of rows alone, or each row on a line of its own",
                )
        with _opened(file) as stream:
            array = _begins_array(stream)
        with _opened(file) as stream:
            yield from _entries(stream, file) if array else _lines(stream, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("the file cannot be read", where=file, got=type(error).__name__, fix="copy or pack it again") from error


def _opened(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb"))


def _is_one_object(start: bytes) -> bool:
    """Whether a file begins with an object that goes on over lines, as programs write it to be read by people."""
    first, newline, _ = start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    return bool(newline) and first.startswith(b"{") and first.rstrip().endswith((b"{", b"[", b",", b":")) and not _is_json(first)


def _begins_array(stream: IO[bytes]) -> bool:
    start = stream.read(PIECE).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"["):
        return False
    # A line that is an array itself is a bad row among lines, not the beginning of one array over all lines.
    return b"\n" not in start or not _is_json(start.split(b"\n", 1)[0]) or not start.split(b"\n", 1)[1].lstrip().startswith((b"[", b"{"))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(stream: IO[bytes], file: Path) -> Rows:
    number = 0
    while line := stream.readline(MOST_BYTES + 1):
        number += 1
        if len(line) > MOST_BYTES:
            yield number, failing(_too_long(f"{file}:{number}"))
            while line and not line.endswith(b"\n"):  # the rest of the line
                line = stream.readline(MOST_BYTES)
        elif line.strip():
            yield number, _line(line, f"{file}:{number}")


def _line(line: bytes, where: str) -> Callable[[], Any]:
    def parsed() -> Any:
        try:
            return parse(line.decode("utf-8-sig"), where)
        except UnicodeDecodeError as error:
            raise DataError("line is not UTF-8", where=where, got=f"byte {error.start} of the line", fix="save the file as UTF-8") from None

    return parsed


def parse(text: str, where: str) -> Any:
    """Parse the JSON of one row.

    Raises:
        DataError: it is malformed, nested too deeply, or an object has a name twice, of which JSON readers keep the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise _too_deep(where) from None
    except _DoubledError:
        raise _doubled(where) from None
    except ValueError as error:
        place = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number of thousands of digits"
        raise DataError(MALFORMED, where=where, expected="one JSON object", got=place) from None


class _DoubledError(Exception):
    """An object has a name twice, of which JSON readers keep the last."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _DoubledError
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_without_doubles)


def _entries(stream: IO[bytes], file: Path) -> Rows:
    """Entries of an array, which are parsed one at a time; a malformed one ends the file, as nobody knows where the next begins."""
    pieces = _Pieces(stream)
    number, expects = 0, "["
    try:
        while True:
            found = pieces.next_character()
            if found == "]" and expects != "[":
                break
            if found != expects:
                raise _malformed(file, number, f"an array: '{expects}' between its entries", found)
            pieces.skip()
            number += 1
            if pieces.next_character() == "]" and expects == "[":
                break
            expects = ","
            yield number, _entry(pieces, f"{file}:{number}")
    except UnicodeDecodeError:
        yield number, failing(DataError("file is not UTF-8", where=f"{file}:{number}", fix="save the file as UTF-8"))
    except DataError as problem:
        yield max(number, 1), failing(at(problem, f"{file}:{max(number, 1)}"))
    else:
        pieces.skip()
        if rest := pieces.next_character():
            yield number + 1, failing(_malformed(file, number, "nothing after the array", rest))


def _entry(pieces: _Pieces, where: str) -> Callable[[], Any]:
    try:
        try:
            entry = pieces.take()
        except _DoubledError:
            pieces.skip_value()
            return failing(_doubled(where))
    except RecursionError:
        raise _too_deep(where) from None
    except DataError:  # a ValueError, too
        raise
    except ValueError as error:
        raise DataError("malformed JSON", where=where, expected="an array of objects", got=getattr(error, "msg", str(error))) from None
    return lambda: entry


class _Pieces:
    """Text that is read piece by piece, with a place in it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._pieces: Iterator[str] = codecs.iterdecode(iter(lambda: stream.read(PIECE), b""), "utf-8-sig")
        self._text, self._at, self._ended = "", 0, False

    def next_character(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Go on behind the next character."""
        self._at += 1

    def take(self) -> Any:
        """Parse the next value and go on behind it."""
        value, self._at = self._parsed(_DECODER)
        return value

    def skip_value(self) -> None:
        """Go on behind the next value, whatever it is."""
        self._at = self._parsed(json.JSONDecoder())[1]

    def _parsed(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        self.next_character()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except ValueError:
                # Cut off in the middle, or malformed: more text will tell. Twice as much each time, so that a long value is parsed rarely.
                if not self._more(len(self._text) - self._at):
                    raise
                continue
            # A number at the end of the text may go on.
            if end < len(self._text) or not self._more():
                return value, end

    def _more(self, least: int = 0) -> bool:
        """Read on, `least` characters at least where there are as many."""
        read, size = [self._text[self._at :]], 0
        while not self._ended and size <= least:
            piece = next(self._pieces, None)
            self._ended = piece is None
            read.append(piece or "")
            size += len(piece or "")
        self._text, self._at = "".join(read), 0
        if len(self._text) > MOST_BYTES:
            raise DataError("entry is too long", expected=f"at most {MOST_BYTES:,} bytes", fix="take it out, or leave pictures in files")
        return size > 0


def _too_long(where: str) -> DataError:
    return DataError(
        "row is too long", where=where, expected=f"at most {MOST_BYTES:,} bytes", fix="take it out, or leave its pictures in files"
    )


def _too_deep(where: str) -> DataError:
    return DataError("JSON is nested too deeply", where=where, expected="a row as docs/data.md describes it", fix="take the row out")


def _doubled(where: str) -> DataError:
    return DataError("row has a name twice", where=where, expected="every name once", fix="take one of them out")


def _malformed(file: Path, number: int, expected: str, found: str) -> DataError:
    return DataError(
        "malformed JSON", where=f"{file}:{max(number, 1)}", expected=expected, got=repr(found) if found else "the end of the file"
    )
