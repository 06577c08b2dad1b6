"""Parts of the documentation that are written from the code: `python -m tests.docs.generated` writes all of them anew."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.markdown import ROOT
from vgid.attacks import ATTACKS
from vgid.auditing.policy import load_policy
from vgid.config import read_recipe, recipe_names
from vgid.methods import catalogue
from vgid.settings import DEFAULT_METHOD
from vgid.settings_reference import as_markdown

COMMAND = "python -m tests.docs.generated"


def attacks() -> str:
    """The attacks of the package's own policy, in its order: what each needs, what it may recover, and what it finds."""
    lines = ["| attack | access | allowed share | finds |", "|---|---|---|---|"]
    for name, rule in load_policy(None).attacks.items():
        most = f"{rule.most:g}" if rule.required else f"{rule.most:g}, not required"
        lines.append(f"| `{name}` | {ATTACKS.get(name).access} | {most} | {ATTACKS.get(name).finds} |")
    return "\n".join(lines) + "\n"


def recipes() -> str:
    """The built-in recipes, as `vgid recipes` lists them."""
    read = [(each, each.values.get("method", {}).get("name", DEFAULT_METHOD)) for each in map(read_recipe, recipe_names())]
    lines = ["| recipe | method | for |", "|---|---|---|", *(f"| `{each.name}` | `{method}` | {each.about} |" for each, method in read)]
    return "\n".join(lines) + "\n"


TABLES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "attacks": ("audit.md", attacks),
    "methods": ("methods.md", catalogue.markdown),
    "recipes": ("recipes.md", recipes),
}
"""Name in the markers of a table, to the page it is on and the function that makes it."""
PAGES: Mapping[str, Callable[[], str]] = {"settings.md": as_markdown}
"""Whole pages."""


def between(name: str) -> re.Pattern[str]:
    """What stands between a table's markers."""
    return re.compile(rf"(?<=<!-- {name}: generated -->\n)(.*?)(?=<!-- /{name} -->)", re.DOTALL)


def expected(page: str) -> str:
    """The text of a page with all that is generated as the code gives it now."""
    if page in PAGES:
        return PAGES[page]()
    text = (ROOT / "docs" / page).read_text("utf-8")
    for name, (place, table) in TABLES.items():
        if place == page:
            made = f"\n{table()}\n"
            assert between(name).search(text), f"docs/{page} has no markers <!-- {name}: generated --> and <!-- /{name} -->"
            text = between(name).sub(lambda _, made=made: made, text)
    return text


def generated_pages() -> list[str]:
    """Pages that are generated, or that hold a generated table."""
    return sorted({*PAGES, *(page for page, _ in TABLES.values())})


def by_hand(path: Path) -> str:
    """The text of a file without its generated parts, whose lines are left empty."""
    text = path.read_text("utf-8")
    if path.parent == ROOT / "docs" and path.name in PAGES:
        return ""
    for name in TABLES:
        text = between(name).sub(lambda found: "\n" * found[0].count("\n"), text)
    return text


if __name__ == "__main__":
    for each in generated_pages():
        (ROOT / "docs" / each).write_text(expected(each), "utf-8")
