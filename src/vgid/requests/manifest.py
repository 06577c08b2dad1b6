"""The manifest of a run's folder, and the check that the record and every file it names are as they were written.

`record.json` holds the SHA-256 of every file of the model and of every result. The manifest, `seal.json`, holds those of `record.json`
and `record.html`, and an HMAC over both under the run's key. The HMAC shows that nobody without the key has altered anything. Digests
alone show accidents, and changes by somebody who forgot a file: whoever can write to the folder can make all of them again. So note the
SHA-256 of `record.json` elsewhere, or sign the folder.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.errors import DataError
from vgid.requests.files import MANIFEST, MERGED, PAGE, RECORD, WORK, files_below, sha256
from vgid.requests.keys import Key
from vgid.requests.record import FileDigest, read_record
from vgid.run_folder import MARK

SCHEMA = "vgid.seal/1"
LISTED = (RECORD, PAGE)
"""Files that the manifest lists."""
UNLISTED = (MANIFEST, MARK, "record.sig")
"""Files that neither the manifest nor the record lists."""
MEANING = {
    "plain": "Digests alone do not exclude a deliberate change: whoever can write to the folder could have made record and manifest again. "
    "Give --key, --sha256 or --public-key.",
    "noted": "The record is the one whose SHA-256 was noted.",
    "keyed": "Nobody without the key has altered anything.",
    "signed": "The holder of the signing key has signed exactly these files.",
}
"""What an intact record shows, by what it was checked with."""


@dataclass(frozen=True)
class IntegrityReport:
    """What a check of a run's folder found.

    Attributes:
        record: SHA-256 of `record.json`; empty where there is none.
        files: number of files that were compared.
        keyed: the HMAC was checked with a key.
        problems: what is wrong, one line for each file; empty where everything is intact.
    """

    record: str
    files: int
    keyed: bool
    problems: tuple[str, ...]


def write_manifest(out: Path, key: Key) -> None:
    """Write `seal.json` for the record and the page in a run's folder.

    Raises:
        OutputError: it cannot be written.
    """
    files = {name: sha256(out / name) for name in LISTED}
    write_json_atomic(out / MANIFEST, {"schema": SCHEMA, "files": files, "hmac": key.value("seal", files)})


def verify_record(out: Path, key: Key | None, expected: str | None = None) -> IntegrityReport:
    """Compare every file of a run's folder with its digest.

    Args:
        out: the run's folder.
        key: the run's key; None leaves the HMAC unchecked.
        expected: SHA-256 of `record.json` that was noted elsewhere.

    Returns:
        The problems, one for each file that is altered, missing, not listed, or outside the folder.

    Raises:
        DataError: there is no record or no manifest, or they cannot be read.
    """
    manifest, found = _read_manifest(out), sha256(out / RECORD) if (out / RECORD).is_file() else ""
    problems = [
        f"{name}: altered" if (out / name).is_file() else f"{name}: missing"
        for name in LISTED
        if not (out / name).is_file() or sha256(out / name) != manifest["files"].get(name)
    ]
    if expected is not None and expected.lower() != found:
        problems.append(f"{RECORD}: its SHA-256 is not the one given")
    if key is not None and not hmac.compare_digest(key.value("seal", manifest["files"]), str(manifest["hmac"])):
        problems.append(f"{MANIFEST}: the HMAC does not fit the key: somebody without the key altered it, or the key is another run's")
    record = read_record(out / RECORD)
    for root, listed in ((out / MERGED, record.model.after.files), (out, record.artefacts)):
        problems += _compare(out, root, listed)
    covered = {MERGED + "/" + each.path for each in record.model.after.files} | {each.path for each in record.artefacts}
    problems += _unlisted(out, covered)
    return IntegrityReport(found, len(covered) + len(LISTED), key is not None, tuple(problems))


def _read_manifest(out: Path) -> dict[str, Any]:
    if not (out / MANIFEST).is_file():
        raise DataError("there is no manifest", where=out / MANIFEST, expected="the file that `vgid forget` wrote beside the record")
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    except ValueError:
        manifest = None
    if (
        not isinstance(manifest, dict)
        or manifest.get("schema") != SCHEMA
        or not isinstance(manifest.get("files"), dict)
        or "hmac" not in manifest
    ):
        raise DataError("the manifest cannot be read", where=out / MANIFEST, expected=f"schema {SCHEMA}")
    return manifest


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
        if name not in covered and name not in (*LISTED, *UNLISTED) and not name.startswith(f"{WORK}/"):
            yield f"{name}: not in the record"
