"""Every code block of the documentation: the real command line parses commands, Python is compiled and its imports resolved."""

import ast
import importlib
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

import vgid
from tests.conftest import example
from tests.docs.markdown import ROOT, Block, blocks
from vgid.commands import app
from vgid.commands.options import run_config
from vgid.config import load_config
from vgid.data.sources import write_examples
from vgid.methods import METHODS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
LANGUAGES = {"sh", "python", "json", "yaml", "toml", "text", "bibtex", ""}
CODE = re.compile(r"(?<!`)`(vgid [^`\n]+)`(?!`)")
"""A command inside a line of text."""


class Command(NamedTuple):
    where: str
    words: list[str]


def of(language: str) -> list[Any]:
    return [pytest.param(block, id=block.where) for block in BLOCKS if block.language == language]


def lines(block: Block) -> Iterator[str]:
    """A shell block's commands, each in one line."""
    yield from (line.strip() for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and not line.strip().startswith("#"))


def commands() -> Iterator[Command]:
    """All `vgid` commands: lines of shell blocks, also behind a launcher, and code in the text."""
    for block in BLOCKS:
        if block.language == "sh":
            for line in lines(block):
                if re.search(r"(^|&& |-m )vgid ", line):
                    yield Command(block.where, shlex.split(re.split(r"(?:^|&& |-m )vgid ", line, maxsplit=1)[1], comments=True))
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            for found in CODE.finditer(line):
                yield Command(f"{page.relative_to(ROOT)}:{number}", shlex.split(found[1])[1:])


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of a command; where one is cut short, values may be missing, but no option unknown."""
    command, words, name = typer.main.get_command(app), [word for word in words if word != "…"], "vgid"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    try:
        return dict(command.make_context(name, list(words)).params)
    except typer.BadParameter.__mro__[1] as error:  # the usage error of whichever click typer brings
        if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError") and "requires an argument" not in str(error):
            raise
    known = {option for each in command.params for option in each.opts}
    assert all(word.partition("=")[0] in known for word in words if word.startswith("-")), f"{name} has no such option: {words}"
    return {}


def placeholder(value: Any) -> bool:
    """NAME, DIR and the like stand for values."""
    return any(re.fullmatch(r"[A-Z_.|<>]+", str(each)) for each in (value if isinstance(value, list) else [value]))


@pytest.mark.parametrize("command", [pytest.param(each, id=f"{each.where} {' '.join(each.words)[:40]}") for each in commands()])
def test_commands_are_understood(command: Command) -> None:
    values = parsed(command.words)
    method = values.get("method")
    if command.words[0] in ("unlearn", "preflight") and not placeholder([method, values.get("recipe"), *values.get("settings", [])]):
        recipe = None if str(values.get("recipe")).endswith(".yaml") else values.get("recipe")
        if method is None or method in METHODS:
            run_config(method, recipe, values.get("settings"), None, None)


@pytest.mark.parametrize("words", [["unlearn", "--modl", "x"], ["unlern"], ["evaluate", "--modle"], ["audit", "--profile", "fast"]])
def test_a_wrong_command_would_be_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"no command|such option|fast"):
        parsed(words)


@pytest.mark.parametrize("block", of("sh"))
def test_other_commands_have_what_they_name(block: Block) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines(block):
        words = [word for word in shlex.split(line, comments=True) if "=" not in word or word.startswith("-")]
        if words and words[0] == "make":
            assert set(words[1:]) <= targets, line
        if words and words[0] == "python" and words[1].endswith(".py"):
            text = (ROOT / words[1]).read_text()
            assert all(f'"{word}"' in text for word in words[2:] if word.startswith("--")), line
        assert set(re.findall(r"\[([a-z]+)\]\"", line)) <= set(extras), line


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles_and_its_imports_are_there(block: Block) -> None:
    tree = ast.parse(block.text, block.where)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, each.name) for each in node.names), f"{block.where}: {ast.unparse(node)}"
        elif isinstance(node, ast.Import):
            assert all(importlib.import_module(each.name) for each in node.names)
    exec(
        compile(ast.Module([n for n in tree.body if isinstance(n, (ast.ClassDef, ast.Import, ast.ImportFrom))], []), block.where, "exec"),
        {"__name__": "page"},
    )


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_python_of_the_front_pages_runs(
    page: str, random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, but for settings that make it quick."""
    (block,) = [block for block in blocks(ROOT / page) if block.language == "python"]
    write_examples(tmp_path / "forget.jsonl", [example(number) for number in range(2)])
    write_examples(tmp_path / "retain.jsonl", [example(number, answer="I do not know.") for number in range(2, 4)])
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "llava").symlink_to(random_folder)
    monkeypatch.chdir(tmp_path)
    code = block.text.replace("forget, retain, out=", "forget, retain, quick, out=")
    assert code != block.text
    quick = load_config(None, ["training.steps=1", "training.forget_batch=2", "training.retain_batch=2", "method.adversary=null"])
    exec(code, {"quick": quick})
    assert capsys.readouterr().out.split()[::3] == ["forget", "retain"]
    assert (tmp_path / "runs" / "forgotten" / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("block", of("json"))
def test_json_is_json(block: Block) -> None:
    try:
        assert json.loads(block.text)
    except json.JSONDecodeError:
        assert all(json.loads(line) for line in block.text.splitlines() if line)


@pytest.mark.parametrize("block", [*of("yaml"), *of("toml")])
def test_settings_are_read(block: Block) -> None:
    assert (yaml.safe_load if block.language == "yaml" else tomllib.loads)(block.text)


def test_every_block_says_what_it_is() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES - {""}, [
        block.where for block in BLOCKS if block.language not in LANGUAGES - {""}
    ]
    fences = sum(len(re.findall(r"^ *```", page.read_text("utf-8"), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@pytest.mark.parametrize("block", of("python"))
def test_calls_fit_the_functions(block: Block) -> None:
    """Calls of what a block imports, by name or as an attribute of `vgid`: their number of arguments and their names."""
    tree, known = ast.parse(block.text), {}
    for node in [node for node in tree.body if isinstance(node, ast.ImportFrom)]:
        known |= {each.asname or each.name: getattr(importlib.import_module(str(node.module)), each.name) for each in node.names}
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = ast.unparse(call.func)
        function = getattr(vgid, name.removeprefix("vgid.")) if re.fullmatch(r"vgid\.\w+", name) else known.get(name)
        if inspect.isfunction(function) and not any(isinstance(each, ast.Starred) for each in call.args):
            inspect.signature(function).bind(*call.args, **{str(each.arg): each.value for each in call.keywords})
