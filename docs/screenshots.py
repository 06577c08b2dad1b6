"""Take the documentation's pictures of pages, from real runs.

    python docs/screenshots.py --report runs/demo/report.html --out docs/img
    python docs/screenshots.py --inspect URL --question "Who is this?" --picture face.png --out docs/img

Needs the extra `browser`. Each page is taken in four variants: laptop and phone, light and dark. Pictures have an 8-bit palette, so that
they are small enough to be committed.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

LAPTOP, PHONE = {"width": 1180, "height": 760}, {"width": 390, "height": 844}
VARIANTS = {
    "laptop": {"viewport": LAPTOP, "color_scheme": "light"},
    "laptop-dark": {"viewport": LAPTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
    "phone-dark": {"viewport": PHONE, "color_scheme": "dark"},
}
WAIT = 60_000
"""Milliseconds to wait for an answer of the inspector."""


def shoot(page: Any, path: Path, whole: bool) -> None:
    """Write a screenshot with 128 colours.

    Args:
        page: a page of Playwright.
        path: the file to write.
        whole: take the whole page, not only what fits on the screen.
    """
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def ask(page: Any, question: str, picture: Path | None) -> None:
    """Ask the inspector a question, and wait for both answers.

    Args:
        page: a page of Playwright with the inspector open.
        question: the question's text.
        picture: a picture to upload; None asks without one.
    """
    if picture is not None:
        page.set_input_files("input[type=file]", picture)
        page.wait_for_selector("img[src*='/file=']", timeout=WAIT)
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("Before", exact=True).first.wait_for(timeout=WAIT)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, action="append", default=[], help="an HTML page; pictures get its name without suffix")
    parser.add_argument("--inspect", help="address of a running inspector, with its token")
    parser.add_argument("--question", default="Who is this person?")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated; all by default")
    parser.add_argument("--whole", action="store_true", help="take the whole page, not only what fits on the screen")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pages = {path.stem: path.resolve().as_uri() for path in given.report} | ({"inspect": given.inspect} if given.inspect else {})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for variant in given.variants.split(","):
            context = browser.new_context(**VARIANTS[variant])
            for name, address in pages.items():
                page = context.new_page()
                page.goto(address)
                if name == "inspect":
                    ask(page, given.question, given.picture)
                shoot(page, given.out / f"{name}-{variant}.png", given.whole)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
