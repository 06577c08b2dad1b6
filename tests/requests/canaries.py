"""Strings and pictures that occur nowhere else, and a search for them in every byte of a folder, inside archives and columns too."""

import base64
import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

SHORTEST = 6
"""Bytes of a needle; shorter ones would be found by chance."""


@dataclass(frozen=True)
class Canary:
    """A person who does not exist, in words that no text or vocabulary holds, and a picture of noise."""

    words: tuple[str, ...]
    picture: bytes

    def needles(self) -> dict[str, bytes]:
        """Everything that would give it away, and what it is."""
        found: dict[str, bytes] = {}
        for word in self.words:
            texts = {"text": word, "lower": word.lower(), "json": json.dumps(word)[1:-1], "url": quote(word)}
            found |= {f"{word} as {name}": text.encode() for name, text in texts.items()}
            found |= {f"{word} in UTF-16": word.encode("utf-16-le"), f"{word} in hexadecimal": word.encode().hex().encode()}
            found |= {f"{word} in base 64, {skip}": base64.b64encode(word.encode()[skip:])[:-4] for skip in range(3)}
            found |= {
                f"{word} by its plain {kind}": hashlib.new(kind, word.encode()).hexdigest()[:16].encode() for kind in ("sha256", "md5")
            }
        return {name: needle for name, needle in (found | self._of_the_picture()).items() if len(needle) >= SHORTEST}

    def _of_the_picture(self) -> dict[str, bytes]:
        pixels = np.asarray(Image.open(io.BytesIO(self.picture)).convert("RGB"))
        row = pixels[len(pixels) // 2].astype(np.float32)
        middle = self.picture[len(self.picture) // 2 :][:48]
        plain = {"picture, encoded": middle, "picture, pixels": pixels[len(pixels) // 2].tobytes()[:48]}
        floats = {"picture, as floats": (row / 255).tobytes()[:48], "picture, normalised": (row / 127.5 - 1).tobytes()[:48]}
        texts = {f"picture in base 64, {skip}": base64.b64encode(middle[skip:])[:-4] for skip in range(3)}
        return plain | floats | texts | {"picture by its plain sha256": hashlib.sha256(self.picture).hexdigest()[:16].encode()}


def hits(root: Path, canary: Canary, given: tuple[Path, ...]) -> list[str]:
    """Where a canary is below `root`, but for what the user gave: file names, bytes, members of archives, columns of tables."""
    needles, found = canary.needles(), []
    for path in sorted(root.rglob("*")):
        if any(path == each or each in path.parents for each in given):
            continue
        contents = [("its name", path.name.encode()), *(_contents(path) if path.is_file() and not path.is_symlink() else ())]
        for where, content in contents:
            found += [f"{path}: {name} in {where}" for name, needle in needles.items() if needle in content]
    return found


def mentions(text: str, canary: Canary, given: tuple[Path, ...]) -> list[str]:
    """What a process says of a canary, but for paths that the user gave."""
    for path in given:
        text = text.replace(str(path), "")
    return [name for name, needle in canary.needles().items() if needle in text.encode()]


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    content = path.read_bytes()
    yield "its bytes", content
    yield from _inside(path.name, content)


def _inside(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield f"{name}, member {member}", archive.read(member) + member.encode()
    if content[:2] == b"\x1f\x8b":
        yield f"{name}, unpacked", gzip.decompress(content)
    if content[:4] == b"PAR1":
        from pyarrow import parquet

        for column in parquet.read_table(io.BytesIO(content)).columns:
            for chunk in column.chunks:
                yield from ((f"{name}, a column", bytes(buffer)) for buffer in chunk.buffers() if buffer is not None)
    for encoded in re.findall(rb"data:image/\w+;base64,([A-Za-z0-9+/=]+)", content):
        yield f"{name}, a picture in it", base64.b64decode(encoded)
