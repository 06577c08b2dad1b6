"""The manifest of a run's folder, and the check that the record and every file it names are as they were written.

`record.json` holds the SHA-256 of every file of the model and of every result. The manifest, `manifest.json`, holds those of `record.json`
and `record.html`, and an HMAC over both under the run's key. The HMAC shows that nobody without the key has altered anything. Digests
alone show accidents, and changes by somebody who forgot a file: whoever can write to the folder can make all of them again. So note the
SHA-256 of `record.json` elsewhere, or sign the folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vgid.artifacts import write_json_atomic
from vgid.errors import DataError
from vgid.reading import read_json
from vgid.requests.files import FORMER_MANIFEST, MANIFEST, MERGED, PAGE, RECORD, WORK, sha256
from vgid.requests.keys import Key
from vgid.requests.record import read_record
from vgid.run_folder import MARK

SCHEMA, FORMER_SCHEMA = "vgid.manifest/1", "vgid.seal/1"
USE = {SCHEMA: "manifest", FORMER_SCHEMA: "seal"}
"""What the HMAC is derived for, by schema."""
LISTED = (RECORD, PAGE)
"""Files that the manifest lists."""
SIGNATURE = "record.sig"
MOST_PERMISSIONS = (stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755)
"""Permissions that a handed-on copy may have, at most; whoever else may write could change what was verified."""
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


@dataclass(frozen=True)
class _Folder:
    """What lies in a run's folder, found without following a link: plain files by name, and what else is wrong there."""

    files: Mapping[str, Path]
    problems: tuple[str, ...]


def manifest_of(out: Path) -> Path:
    """Return the path of the manifest: `manifest.json`, or `seal.json` in the folder of an earlier release."""
    return out / FORMER_MANIFEST if not os.path.lexists(out / MANIFEST) and (out / FORMER_MANIFEST).is_file() else out / MANIFEST


def write_manifest(out: Path, key: Key) -> None:
    """Write `manifest.json` for the record and the page in a run's folder.

    Raises:
        OutputError: it cannot be written.
    """
    files = {name: sha256(out / name) for name in LISTED}
    write_json_atomic(out / MANIFEST, {"schema": SCHEMA, "files": files, "hmac": key.value(USE[SCHEMA], files)})


def verify_record(out: Path, key: Key | None, expected: str | None = None) -> IntegrityReport:
    """Compare every file of a run's folder with its digest; links are named, and never followed.

    Args:
        out: the run's folder.
        key: the run's key; None leaves the HMAC unchecked.
        expected: SHA-256 of `record.json` that was noted elsewhere.

    Returns:
        The problems: files that are altered, missing, not listed or not readable, links, special files, permissions for others to write,
        and names that differ in case only.

    Raises:
        DataError: there is no record or no manifest, or they cannot be read.
    """
    folder, manifest_file = _look(out), manifest_of(out)
    for path, what in ((manifest_file, "manifest"), (out / RECORD, "record")):
        if path.name not in folder.files:
            got = "a link or a special file" if os.path.lexists(path) else "nothing"
            raise DataError(
                f"there is no {what}", where=path, expected="a plain file that `vgid forget` wrote", got=got, fix="check the path"
            )
    manifest, record = _read_manifest(manifest_file), read_record(out / RECORD)
    found = _digest(folder.files[RECORD]) or ""
    problems = list(folder.problems)
    if expected is not None and expected.lower() != found:
        problems.append(f"{RECORD}: its SHA-256 is not the one given")
    if set(manifest["files"]) != set(LISTED):
        problems.append(f"{manifest_file.name}: does not list {' and '.join(LISTED)} alone")
    code = key.value(USE[manifest["schema"]], manifest["files"]) if key is not None else manifest["hmac"]
    if not hmac.compare_digest(code.encode(), manifest["hmac"].encode()):
        why = "somebody without the key altered it, or the key is another run's"
        problems.append(f"{manifest_file.name}: the HMAC does not fit the key: {why}")
    listed = {name: manifest["files"].get(name, "") for name in LISTED}
    for each in (*(each.model_copy(update={"path": f"{MERGED}/{each.path}"}) for each in record.model.after.files), *record.artefacts):
        if each.path in listed:
            problems.append(f"{each.path}: listed twice")
        listed[each.path] = each.sha256
    problems += _compare(folder, listed)
    unlisted = {manifest_file.name, MARK, SIGNATURE}
    problems += [f"{name}: not in the record" for name in folder.files if name not in listed and name not in unlisted]
    return IntegrityReport(found, len(listed), key is not None, tuple(problems))


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    schema, files = manifest.get("schema"), manifest.get("files")
    right = (
        isinstance(schema, str) and schema in USE,
        isinstance(files, dict) and all(isinstance(value, str) for value in files.values()),
        isinstance(manifest.get("hmac"), str),
    )
    if not all(right):
        raise DataError("the manifest cannot be read", where=path, expected=f"schema {SCHEMA}, with files and hmac", got="something else")
    return manifest


def _look(out: Path) -> _Folder:
    """Walk through a run's folder, except for what `vgid purge` removes."""
    if not out.is_dir():
        raise DataError("no such folder", where=out, expected="a folder that `vgid forget` wrote", got="nothing", fix="check the path")
    files: dict[str, Path] = {}
    problems: list[str] = []
    waiting = [out]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            name, mode = path.relative_to(out).as_posix(), path.lstat().st_mode
            if stat.S_ISLNK(mode):
                problems.append(f"{name}: a link, which is not followed")
            elif name == WORK and stat.S_ISDIR(mode):
                continue
            elif stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                files[name] = path
            else:
                problems.append(f"{name}: not a plain file")
            plain = mode & ~stat.S_ISGID if stat.S_ISDIR(mode) else mode  # folders of a group hand it on
            if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not any(plain | most == most for most in MOST_PERMISSIONS):
                problems.append(f"{name}: permissions {stat.S_IMODE(mode):o}: others may write, or it may be run")
    same: dict[str, list[str]] = {}
    for name in files:
        same.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    problems += [f"{' and '.join(names)}: the same name but for case or accents" for names in same.values() if len(names) > 1]
    return _Folder(files, tuple(problems))


def _compare(folder: _Folder, listed: Mapping[str, str]) -> Iterator[str]:
    for name, wanted in listed.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            yield f"{name}: lies outside the folder"
        elif name not in folder.files:
            yield f"{name}: missing"
        elif (found := _digest(folder.files[name])) != wanted:
            yield f"{name}: {'cannot be read' if found is None else 'altered'}"


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a plain file; None where it cannot be read, or has become a link."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
