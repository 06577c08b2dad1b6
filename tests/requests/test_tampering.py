"""A table of ways to tamper with a run's folder: each is named, none is followed out of the folder, and none crashes the check."""

import json
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vgid.errors import VgidError
from vgid.requests.files import sha256
from vgid.requests.keys import read_key
from vgid.requests.manifest import verify_record

Change = Callable[[Path], Any]


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the object of a JSON file."""

    def changed(out: Path) -> None:
        content = json.loads((out / name).read_text("utf-8"))
        change(content)
        (out / name).write_text(json.dumps(content), "utf-8")

    return changed


def write(name: str, content: bytes) -> Change:
    return lambda out: (out / name).write_bytes(content)


def link(name: str, to: Callable[[Path], Path]) -> Change:
    """Put a link in the place of a file or folder."""

    def linked(out: Path) -> None:
        target = to(out)
        path = out / name
        if path.is_dir():
            shutil.copytree(path, target)
            shutil.rmtree(path)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
            path.unlink()
        path.symlink_to(target)

    return linked


def outside(out: Path) -> Path:
    return out.parent / "elsewhere"


def make_socket(out: Path) -> None:
    there = Path.cwd()
    os.chdir(out)  # the path of a socket must be short
    try:
        socket.socket(socket.AF_UNIX).bind("s")
    finally:
        os.chdir(there)


def hmac_of(value: Any) -> Change:
    return edit("manifest.json", lambda content: content.update(hmac=value))


def first_digest(field: str, value: Any) -> Change:
    return edit("record.json", lambda content: content["artefacts"][0].update({field: value}))


def both_digests(out: Path) -> None:
    """An altered result, with the digest in the record and that of the record in the manifest made again."""
    (out / "audit" / "audit.json").write_text("{}")

    def with_new_digest(record: dict[str, Any]) -> None:
        altered = next(each for each in record["artefacts"] if each["path"] == "audit/audit.json")
        altered["sha256"] = sha256(out / "audit" / "audit.json")

    edit("record.json", with_new_digest)(out)
    edit("manifest.json", lambda manifest: manifest["files"].update({"record.json": sha256(out / "record.json")}))(out)


def swap(out: Path) -> None:
    one, two = out / "checks" / "preflight.json", out / "checks" / "export.json"
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


def mode(name: str, bits: int) -> Change:
    return lambda out: (out / name).chmod(bits)


MODEL = "merged/model.safetensors"
TAMPERS: dict[str, tuple[Change, str]] = {
    "the model is a link to a folder elsewhere": (link("merged", outside), "merged: a link"),
    "the model is a link to a folder beside it": (link("merged", lambda out: out / "other"), "merged: a link"),
    "weights are a link": (link(MODEL, outside), f"{MODEL}: a link"),
    "weights are a link inside the folder": (link(MODEL, lambda out: out / "merged" / "w"), f"{MODEL}: a link"),
    "the record is a link": (link("record.json", outside), "a link or a special file"),
    "the manifest is a link": (link("manifest.json", outside), "a link or a special file"),
    "the page is a link": (link("record.html", outside), "record.html: a link"),
    "the audit is a link": (link("audit", outside), "audit: a link"),
    "a link that leads nowhere": (lambda out: (out / "merged" / "x").symlink_to("nowhere"), "merged/x: a link"),
    "a link to itself": (lambda out: (out / "loop").symlink_to("loop"), "loop: a link"),
    "a link to the folder itself": (lambda out: (out / "merged" / "up").symlink_to(".."), "merged/up: a link"),
    "work is a link": (link("work", outside), "work: a link"),
    "a file in the place of work": (
        lambda out: (shutil.rmtree(out / "work"), (out / "work").touch()),
        "work: not in the record",
    ),
    "a pipe": (lambda out: os.mkfifo(out / "merged" / "pipe"), "merged/pipe: not a plain file"),
    "a pipe in the place of weights": (lambda out: ((out / MODEL).unlink(), os.mkfifo(out / MODEL)), f"{MODEL}: not a plain file"),
    "a socket": (make_socket, "s: not a plain file"),
    "a folder in the place of a file": (
        lambda out: ((out / "record.html").unlink(), (out / "record.html").mkdir()),
        "record.html: missing",
    ),
    "code beside the weights": (write("merged/modeling.py", b""), "merged/modeling.py: not in the record"),
    "a hidden file": (write("merged/.hidden", b""), "merged/.hidden: not in the record"),
    "a file in a new folder": (lambda out: ((out / "new").mkdir(), (out / "new" / "f").touch()), "new/f: not in the record"),
    "a second manifest": (lambda out: shutil.copy(out / "manifest.json", out / "seal.json"), "seal.json: not in the record"),
    "a name in other case": (write("merged/CONFIG.json", b"{}"), "the same name but for case"),
    "a name with other accents": (
        lambda out: [(out / n).touch() for n in ("caf\u00e9", "cafe\u0301")],
        "the same name but for case or accents",
    ),
    "others may write": (mode(MODEL, 0o666), f"{MODEL}: permissions 666"),
    "a file may be run": (mode(MODEL, 0o755), f"{MODEL}: permissions 755"),
    "a file runs as its owner": (mode("record.html", 0o4600), "record.html: permissions 4600"),
    "others may write to a folder": (mode("merged", 0o777), "merged: permissions 777"),
    "weights are cut off": (lambda out: os.truncate(out / MODEL, 100), f"{MODEL}: altered"),
    "weights are empty": (write(MODEL, b""), f"{MODEL}: altered"),
    "weights are gone": (lambda out: (out / MODEL).unlink(), f"{MODEL}: missing"),
    "the model is gone": (lambda out: shutil.rmtree(out / "merged"), f"{MODEL}: missing"),
    "two results change places": (swap, "checks/preflight.json: altered"),
    "digests made again": (both_digests, "the HMAC does not fit the key"),
    "a path out of the folder": (first_digest("path", "../retain.jsonl"), "../retain.jsonl: lies outside"),
    "an absolute path": (first_digest("path", "/etc/passwd"), "/etc/passwd: lies outside"),
    "a path with a null byte": (first_digest("path", "a\0b"), "a\0b: missing"),
    "a path that is empty": (first_digest("path", ""), "lies outside"),
    "a file listed twice": (edit("record.json", lambda record: record["artefacts"].append(record["artefacts"][0])), "listed twice"),
    "the page left out of the manifest": (edit("manifest.json", lambda content: content["files"].pop("record.html")), "does not list"),
    "another file in the manifest": (edit("manifest.json", lambda content: content["files"].update({"../x": "0"})), "does not list"),
    "an HMAC with accents": (hmac_of("ä" * 64), "the HMAC does not fit"),
    "an empty HMAC": (hmac_of(""), "the HMAC does not fit"),
    "an HMAC that is a number": (hmac_of(5), "the manifest cannot be read"),
    "an HMAC that is missing": (edit("manifest.json", lambda content: content.pop("hmac")), "the manifest cannot be read"),
    "a manifest that is not UTF-8": (write("manifest.json", b'{"a": "\xff"}'), "not UTF-8"),
    "a manifest nested deeply": (write("manifest.json", b'{"a":' * 100_000), "nested too deeply"),
    "a manifest with half a character": (hmac_of("\ud800"), "lone surrogate"),
    "a record nested deeply": (write("record.json", b"[" * 200_000), "nested too deeply"),
    "a record that is not UTF-8": (write("record.json", b"\xff\xfe"), "not UTF-8"),
    "a record that is a list": (write("record.json", b"[]"), "does not hold an object"),
    "a record without a conclusion": (edit("record.json", lambda record: record.pop("conclusion")), "the record cannot be read"),
    "a record with another conclusion": (edit("record.json", lambda r: r["conclusion"].update(statement="")), "record.json: altered"),
    "a record with a number in place of a text": (edit("record.json", lambda r: r["request"].update(id=5)), "the record cannot be read"),
    "a record that is not a number": (write("record.json", b'{"schema": NaN}'), "not finite"),
}


@pytest.mark.skipif(os.name != "posix", reason="links and permissions are POSIX")
@pytest.mark.parametrize("name", TAMPERS)
def test_it_is_named(copied: Path, name: str) -> None:
    out = copied / "out"
    change, expected = TAMPERS[name]
    change(out)
    try:
        found = "\n".join(verify_record(out, read_key(copied / "out.key")).problems)
    except VgidError as error:
        assert error.where and error.exit_code == 2
        found = str(error)
    assert expected in found


def test_the_folder_of_an_earlier_release_verifies(copied: Path) -> None:
    out, key = copied / "out", read_key(copied / "out.key")
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    former = {"schema": "vgid.seal/1", "files": manifest["files"], "hmac": key.value("seal", manifest["files"])}
    (out / "manifest.json").unlink()
    (out / "seal.json").write_text(json.dumps(former))
    assert verify_record(out, key).problems == ()


def test_a_copy_that_others_may_read_verifies(copied: Path) -> None:
    for path in [copied / "out", *(copied / "out").rglob("*")]:
        path.chmod(0o755 if stat.S_ISDIR(path.stat().st_mode) else 0o644)
    assert verify_record(copied / "out", read_key(copied / "out.key")).problems == ()
