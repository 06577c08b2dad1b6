"""What the documentation names exists: modules, functions, settings, options, and the packages of the architecture in their order."""

import importlib
import re
from collections.abc import Iterator

import pytest
import typer
from pydantic import BaseModel

import vgid
from tests.docs.generated import by_hand
from tests.docs.markdown import FENCE, ROOT
from tests.test_layers import ORDER
from vgid.attacks import ATTACKS
from vgid.commands import app
from vgid.methods import METHODS
from vgid.settings import AdapterConfig, TrainingConfig, ValidationConfig

PAGES = {str(path.relative_to(ROOT)): by_hand(path) for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
del PAGES["docs/LOG.md"]  # what was measured keeps the names of its day
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SECTIONS = {"training": TrainingConfig, "validation": ValidationConfig, "adapter": AdapterConfig}
OTHERS = {
    *("--enable-lora", "--max-lora-rank", "--lora-modules", "--lora-paths", "--enable-tower-connector-lora"),
    *("--no-log-samples", "--help", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),
}
"""Options of other programs."""


def code(pattern: str) -> Iterator[tuple[str, str]]:
    """Page and text of all code in the text that begins with a pattern."""
    for page, text in PAGES.items():
        for found in CODE.finditer(FENCE.sub("", text)):
            if match := re.match(pattern, found[1]):
                yield page, match[0]


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    head, *rest = name.split(".")
    thing = importlib.import_module(head)
    for place, part in enumerate(rest):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            try:
                thing = importlib.import_module(".".join([head, *rest[: place + 1]]))
            except ImportError:
                return False
    return True


def fields(kind: type[BaseModel], key: str) -> bool:
    """Whether a settings type has a key, nested ones included."""
    first, _, rest = key.partition(".")
    if first not in kind.model_fields:
        return False
    default = kind.model_fields[first].get_default(call_default_factory=True, validated_data={})
    return not rest or (isinstance(default, BaseModel) and fields(type(default), rest))


def test_modules_and_functions() -> None:
    named = {(page, name) for page, name in code(r"vgid(?:\.[a-zA-Z_]\w*)+(?![\w/-])") if "/" not in name}
    assert len(named) > 20
    assert [f"{page}: {name}" for page, name in sorted(named) if not resolves(name)] == []


def test_settings() -> None:
    named = {(page, key) for page, key in code(r"(?:training|validation|adapter|method)\.[a-z_.]+") if not key.endswith(".")}
    assert len(named) > 20
    kinds = [METHODS.get(name).Config for name in METHODS]
    for page, key in named:
        section, _, field = key.partition(".")
        assert any(fields(kind, field) for kind in ([SECTIONS[section]] if section in SECTIONS else kinds)), f"{page}: {key}"
    assert not fields(TrainingConfig, "learning") and fields(METHODS.get("vgid").Config, "adversary.rate")


def options(command: object) -> Iterator[str]:
    """All options of a command and of those below it."""
    for each in getattr(command, "params", []):
        yield from each.opts
    for each in getattr(command, "commands", {}).values():
        yield from options(each)


def test_options() -> None:
    """Options in the text; those in blocks are parsed by test_blocks.py."""
    known, scripts = {*options(typer.main.get_command(app))}, "".join(path.read_text("utf-8") for path in (ROOT / "perf").glob("*.py"))
    named = {(page, option) for page, text in PAGES.items() for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", FENCE.sub("", text))}
    assert len(named) > 50
    unknown = {(page, option) for page, option in named if option not in known | OTHERS and f'"{option}"' not in scripts}
    assert unknown == set()


def test_every_attack_has_its_budget() -> None:
    assert [name for name in ATTACKS if f"| `{name}` |" not in PAGES["docs/audit.md"]] == []


def test_the_architecture_has_the_order_of_the_packages() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGES["docs/design/architecture.md"], re.MULTILINE)
    assert [int(level) for level, _ in rows] == list(range(1, len(ORDER) + 1))
    assert [tuple(re.findall(r"`(\w+)`", names)) for _, names in rows] == list(ORDER)


def test_the_python_page_has_exactly_the_public_names() -> None:
    named = re.findall(r"^::: (\S+)$", PAGES["docs/api.md"], re.MULTILINE)
    assert sorted(named) == sorted(f"vgid.{name}" for name in vgid.__all__)


@pytest.mark.parametrize("page", ["docs/api.md", "docs/extension-classes.md"])
def test_what_is_documented_exists(page: str) -> None:
    named = re.findall(r"^::: (\S+)$", PAGES[page], re.MULTILINE)
    assert [name for name in named if not resolves(name)] == []
