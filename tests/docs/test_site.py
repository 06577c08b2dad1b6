"""The documentation as a site: it builds in strict mode, loads nothing from elsewhere, and every link leads somewhere."""

import html
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.markdown import ROOT, missing_links

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LINKS = {"script", "link", "img", "a", "iframe", "source"}


class Page(HTMLParser):
    """What a page loads, where it links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in LOADS and given.get(LOADS[tag]) and given.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(given[LOADS[tag]])
        if tag in LINKS:
            self.links += [given[name] for name in ("href", "src") if given.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason='the site is built by the extra: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("docs")
    (folder / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text())
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "src").symlink_to(ROOT / "src")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not [each for each in Page(page.read_text()).loads if urlsplit(each).netloc], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_links_lead_somewhere(site: Path) -> None:
    pages = {page: Page(page.read_text()) for page in site.rglob("*.html")}
    broken = []
    for page, found in pages.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            fine = target.is_file() and (not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors)
            broken += [] if fine or page.name == "404.html" else [f"{page.name}: {link}"]
    assert not broken


@pytest.mark.parametrize(
    ("page", "name"),
    [("api", "vgid.unlearn"), ("api", "vgid.Example"), ("extension-classes", "vgid.methods.base.Method")],
)
def test_the_reference_holds_the_docstrings(site: Path, page: str, name: str) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / f"{page}.html").read_text()))
    module, _, attribute = name.rpartition(".")
    first = (inspect.getdoc(getattr(importlib.import_module(module), attribute)) or "").splitlines()[0]
    assert first.replace("`", "") in text and "Raises" in text


def test_every_page_is_in_the_navigation() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)) == pages


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_out_of_the_front_pages(name: str) -> None:
    assert missing_links(ROOT / name) == []


def test_a_missing_file_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("[a](https://x.example) [b](README.md#top) [c](docs/no.md) [d](../../actions/workflows/no.yml) [e](../../pulls)\n")
    assert missing_links(page) == ["docs/no.md", "../../actions/workflows/no.yml", "../../pulls"]
