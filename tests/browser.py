"""A browser for tests of pages; they are skipped where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(**options: Any) -> Iterator[Any]:
    """A headless Chromium, as Playwright's `Browser`: its own, else the system's."""
    reason = 'pages are tested by the extra: pip install -e ".[browser]"'
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    with api.sync_playwright() as playwright:
        system = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            browser = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"], **options)
        except api.Error as error:
            pytest.skip(f"no Chromium can be started (playwright install chromium): {error.message.splitlines()[0]}")
        yield browser
        browser.close()


def faults(page: Any) -> list[str]:
    """What axe finds wrong with a page: rule, and the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[browser]"').Axe()
    found = axe.run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']][:3]}" for each in found]
