"""Code blocks out of the documentation."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ \t]*$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: `where` is file:line, `title` the file it stands for."""

    where: str
    language: str
    title: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a file."""
    whole = path.read_text("utf-8")
    for found in FENCE.finditer(whole):
        line = whole.count("\n", 0, found.start()) + 1
        title = re.search(r'title="([^"]+)"', found["info"])
        yield Block(f"{path.relative_to(ROOT)}:{line}", found["info"].split(" ")[0], title[1] if title else "", found["text"])
