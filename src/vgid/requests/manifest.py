"""Whether a record, and everything it speaks of, is as it was written.

`record.json` holds the SHA-256 of every artefact. `seal.json` holds those of `record.json` and `record.html`, and an HMAC over both
under the run's key. The HMAC shows that nobody without the key has altered anything. The digests alone show accidents, and changes by
somebody who forgot a file; whoever may write to the folder can make all of them anew, so note the record's own SHA-256 elsewhere, or
sign it.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import MARK, write_json_atomic
from vgid.errors import DataError
from vgid.requests.files import MERGED, PAGE, RECORD, SEAL, WORK, files_below, sha256
from vgid.requests.keys import Key
from vgid.requests.record import FileDigest, read_record

SCHEMA = "vgid.seal/1"
SEALED = (RECORD, PAGE)
FREE = (SEAL, MARK, "record.sig")
"""Files that are covered by none of the digests."""
MEANING = {
    "plain": "Digests alone do not show this: whoever could write to the folder could also have made record and seal anew. "
    "Give --key, --sha256 or --public-key.",
    "noted": "The record is the one whose SHA-256 was noted.",
    "keyed": "Nobody without the key has altered anything.",
    "signed": "Whoever holds the signing key has signed exactly these files.",
}
"""What an intact record shows, by what it was checked with."""


@dataclass(frozen=True)
class Verified:
    """What was found: `files` looked at, `problems` with them, and what the key, if it was given, has shown."""

    record: str
    files: int
    keyed: bool
    problems: tuple[str, ...]


def write_seal(out: Path, key: Key) -> None:
    """Seal record and page."""
    files = {name: sha256(out / name) for name in SEALED}
    write_json_atomic(out / SEAL, {"schema": SCHEMA, "files": files, "hmac": key.object("seal", files)})


def verify(out: Path, key: Key | None, expected: str | None = None) -> Verified:
    """Compare everything with its digests.

    Args:
        out: the run's folder.
        key: the run's; None leaves the HMAC unchecked.
        expected: SHA-256 of `record.json` that was noted elsewhere.

    Raises:
        DataError: there is no record or no seal, or they cannot be read.
    """
    seal, found = _seal(out), sha256(out / RECORD) if (out / RECORD).is_file() else ""
    problems = [
        f"{name}: altered" if (out / name).is_file() else f"{name}: missing"
        for name in SEALED
        if _digest(out / name) != seal["files"].get(name)
    ]
    if expected is not None and expected.lower() != found:
        problems.append(f"{RECORD}: its SHA-256 is not the one given")
    if key is not None and not hmac.compare_digest(key.object("seal", seal["files"]), str(seal["hmac"])):
        problems.append(f"{SEAL}: the HMAC does not fit the key: altered by somebody without it, or the key is another run's")
    record = read_record(out / RECORD)
    for root, listed in ((out / MERGED, record.model.after.files), (out, record.artefacts)):
        problems += _compare(out, root, listed)
    covered = {MERGED + "/" + each.path for each in record.model.after.files} | {each.path for each in record.artefacts}
    problems += _unlisted(out, covered)
    return Verified(found, len(covered) + len(SEALED), key is not None, tuple(problems))


def _seal(out: Path) -> dict[str, Any]:
    if not (out / SEAL).is_file():
        raise DataError("there is no seal", where=out / SEAL, expected="what `vgid forget` wrote beside the record")
    try:
        seal = json.loads((out / SEAL).read_text("utf-8"))
    except ValueError:
        seal = None
    if not isinstance(seal, dict) or seal.get("schema") != SCHEMA or not isinstance(seal.get("files"), dict) or "hmac" not in seal:
        raise DataError("the seal cannot be read", where=out / SEAL, expected=f"schema {SCHEMA}")
    return seal


def _digest(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _compare(out: Path, root: Path, listed: list[FileDigest]) -> Iterator[str]:
    for each in listed:
        path = root / each.path
        if not path.resolve().is_relative_to(out.resolve()):
            yield f"{each.path}: lies outside the folder"
        elif not path.is_file():
            yield f"{path.relative_to(out)}: missing"
        elif sha256(path) != each.sha256:
            yield f"{path.relative_to(out)}: altered"


def _unlisted(out: Path, covered: set[str]) -> Iterator[str]:
    for path in files_below(out):
        name = path.relative_to(out).as_posix()
        if name not in covered and name not in (*SEALED, *FREE) and not name.startswith(f"{WORK}/"):
            yield f"{name}: not in the record"
