"""Code blocks, paragraphs and links of the documentation."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ \t]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
FORGE = re.compile(r"(?:\.\./){2}(?:actions/workflows/(?P<workflow>[\w.-]+\.yml)(?:/badge\.svg)?|security/advisories/new)")
"""Pages of the repository's host, relative to a file at the top of the repository: its public address is not known here."""


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


def words(text: str) -> int:
    """Number of words outside of fenced blocks: everything between spaces that has a letter or a digit."""
    return sum(bool(re.search(r"\w", word)) for word in FENCE.sub("", text).split())


def paragraphs(text: str) -> list[str]:
    """Paragraphs and list items outside of fenced blocks; no headings, tables or pictures."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", FENCE.sub("\n\n", text))
    return [part.strip() for part in parts if part.strip() and not re.match(r"\s*(#|\||!\[|\[!\[)", part)]


def missing_links(path: Path) -> list[str]:
    """Links of a file at the top of the repository that lead to no file; addresses elsewhere are not followed."""
    missing = []
    for link in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        file, forge = link.partition("#")[0], FORGE.fullmatch(link)
        if forge:
            file = f".github/workflows/{forge['workflow']}" if forge["workflow"] else ""
        if not urlsplit(link).scheme and not (path.parent / file).exists():
            missing.append(link)
    return missing
