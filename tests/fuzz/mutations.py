"""Damage to files: some bytes, or one value in the structure that they hold, are replaced by what nobody would write."""

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable
from random import Random
from typing import Any, Literal

import yaml

Form = Literal["bytes", "json", "lines", "yaml", "gzip", "tar", "safetensors"]
"""What a file holds: `lines` is one JSON object on each, `gzip` is `lines` packed."""

MOST = 10_000
"""Values of a file among which the damaged one is chosen."""
DEEP = 20_000
"""Levels of JSON: far more than the recursion of any parser allows."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, -(2**70), 10**30, 0.5, -1e300, 1e-320),
    *("", " ", "\0", "a\0b", "\ud800", "x" * 3000, "../../etc/passwd", "/dev/zero", "\x1b[2J", "2026-13-45", "(a+)+$", "{{", "نص"),
    *([], {}, [[]], [None], [{}], {"": None}, {"a": {"a": {"a": []}}}, [0] * 50, ["\0"], {"\ud800": 1}),
)
"""Values of wrong types, out of range, or with characters that paths and terminals do not take."""
PIECES: tuple[bytes, ...] = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\x1b[2J", b'"', b"'", b",", b":", b"\t"),
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b"-1", b"0", b"2026-13-45", b"null", b"[]", b"{}", b"true", b"0x1f"),
    *(b"[", b"{", b"]", b"}", b"[" * DEEP, b'{"a":' * DEEP, b"&a [*a]", b"*a", b"!!python/name:os.system ", b"? ", b"<<: ", b"{{", b"%}"),
)
"""Pieces that parsers stumble over."""


def damaged(content: bytes, form: Form, random: Random) -> bytes:
    """Damage a file at one place: in its bytes, or in the structure that they hold."""
    if form != "bytes" and random.random() < 0.6:
        try:
            return _STRUCTURES[form](content, random)
        except Exception:  # it holds no such structure any more, since it was damaged before
            pass
    return random.choice(_BYTES)(content, random)


# -- bytes ----------------------------------------------------------------------------------------------------------------


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, random: Random) -> bytes:
    place, piece = random.randrange(len(content) + 1), random.choice((random.randbytes(4), b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff"))
    return content[:place] + piece + content[place + len(piece) :]


def _insert(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.choice(PIECES) + content[place:]


def _replace_all(content: bytes, random: Random) -> bytes:
    return random.choice(PIECES)


def _cut_off(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _take_out(content: bytes, random: Random) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * random.choice((1, 3)) + content[end:]


_BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _insert,
    _insert,
    _replace_all,
    _cut_off,
    _take_out,
    _repeat,
)


# -- structures -----------------------------------------------------------------------------------------------------------


def changed(value: Any, random: Random) -> Any:
    """Replace, take out or add one value somewhere in lists and mappings."""
    parents: list[tuple[Any, Any]] = []  # (list or mapping, place in it)
    waiting = [value]
    while waiting and len(parents) < MOST:  # a list may hold itself
        found = waiting.pop()
        places = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
        parents += [(found, place) for place in places]
        waiting += [found[place] for place in places]
    if not parents or random.random() < 0.03:
        return random.choice(VALUES)
    parent, place = random.choice(parents)
    kind = random.random()
    if kind < 0.65:
        parent[place] = random.choice(VALUES)
    elif kind < 0.8:
        del parent[place]
    elif kind < 0.9:  # a value from elsewhere
        other, there = random.choice(parents)
        parent[place] = json.loads(json.dumps(other[there], default=str))
    elif isinstance(parent, dict):
        parent[random.choice(("", "\0", "a.b", "schema", "auto_map", "\ud800"))] = parent[place]
    else:
        parent.insert(place, random.choice(VALUES))
    return value


def _json(content: bytes, random: Random) -> bytes:
    return json.dumps(changed(json.loads(content), random)).encode("utf-8", "surrogatepass")


def _lines(content: bytes, random: Random) -> bytes:
    lines = content.splitlines()
    place = random.randrange(len(lines))
    lines[place] = _json(lines[place], random)
    return b"\n".join(lines) + b"\n"


def _yaml(content: bytes, random: Random) -> bytes:
    return yaml.safe_dump(changed(yaml.safe_load(content), random), allow_unicode=random.random() < 0.5).encode("utf-8", "surrogatepass")


def _gzip(content: bytes, random: Random) -> bytes:
    return gzip.compress(damaged(gzip.decompress(content), "lines", random), 1)


def _tar(content: bytes, random: Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(member, archive.extractfile(member)) for member in archive]
        files = [(member.name, stream.read() if stream else b"") for member, stream in members]
    place = random.randrange(len(files))
    name, inner = files[place]
    if random.random() < 0.3:
        name = damaged(name.encode("utf-8", "surrogateescape"), "bytes", random).decode("utf-8", "surrogateescape")
    files[place] = (name, damaged(inner, "json" if name.endswith(".json") else "bytes", random))
    return tar(files)


def tar(files: list[tuple[str, bytes]]) -> bytes:
    """A tar file of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _safetensors(content: bytes, random: Random) -> bytes:
    """Damage the header, which is JSON after its length in eight bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    header = damaged(content[8 : 8 + length], "json", random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


_STRUCTURES: dict[Form, Callable[[bytes, Random], bytes]] = {
    "json": _json,
    "lines": _lines,
    "yaml": _yaml,
    "gzip": _gzip,
    "tar": _tar,
    "safetensors": _safetensors,
}
