"""Every code block of the documentation: the real command line parses commands, Python is compiled and its imports resolved."""

import ast
import importlib
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

import vgid
from tests.conftest import example
from tests.docs.markdown import ROOT, Block, blocks
from vgid.auditing.policy import load_policy
from vgid.commands import app
from vgid.config import RunConfig, read_recipe, resolve
from vgid.data.writing import write_examples
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


EVERY = [pytest.param(each, id=f"{each.where} {' '.join(each.words)[:40]}") for each in commands()]
WITH_SETTINGS = ("unlearn", "preflight", "bench", "forget", "config")
"""Commands that take the settings of a run."""
DEMO = "demo"
"""The recipe of the demo's small model."""
DEMO_SETTINGS = (
    "training.learning_rate",
    "training.steps",
    "training.forget_batch",
    "training.retain_ratio",
    "training.warmup_steps",
    "training.precision",
    "validation.every",
    "validation.patience",
    "adapter.alpha",
)
"""Settings of the recipe `demo` that a run on a real checkpoint must not get unless it asks for them."""


@pytest.mark.parametrize("command", EVERY)
def test_commands_are_understood(command: Command) -> None:
    parsed(command.words)


def options(words: list[str], name: str) -> list[str]:
    """All values of an option, also in a command that is cut short."""
    return [after for word, after in pairwise(words) if word == name]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    nested = [flat(each, f"{prefix}{key}.") if isinstance(each, Mapping) else {f"{prefix}{key}": each} for key, each in values.items()]
    return {key: each for part in nested for key, each in part.items()}


def demo_settings_in(config: RunConfig, asked: Collection[str] = ()) -> list[str]:
    """Settings that are those of the recipe `demo` although nothing asked for them."""
    resolved, demo = flat(config.model_dump()), flat(resolve(DEMO).model_dump())
    return [key for key in DEMO_SETTINGS if key not in asked and key in resolved and resolved[key] == demo[key]]


@pytest.mark.parametrize("command", [each for each in EVERY if each.values[0].words[0] in WITH_SETTINGS])
def test_only_the_demo_gets_the_demo_settings(command: Command) -> None:
    overrides, recipes, methods = (options(command.words, name) for name in ("--set", "--recipe", "--method"))
    if placeholder([*overrides, *recipes, *methods]):
        return
    recipe = next((each for each in recipes if not each.endswith(".yaml")), None)  # a file is the reader's own
    if not set(methods) <= set(METHODS):  # a method of another package, which is not installed here
        methods, overrides = [], [each for each in overrides if not each.startswith("method.")]
    config = resolve(recipe, overrides, method=next(iter(methods), None))
    of_the_demo = any(each.startswith("runs/demo/") for each in options(command.words, "--model"))
    assert (recipe == DEMO) == of_the_demo, "the recipe demo is for the demo's models, and they need it"
    asked = {*flat(read_recipe(recipe).values if recipe else {}), *(each.partition("=")[0] for each in overrides)}
    assert recipe == DEMO or demo_settings_in(config, asked) == []


def test_demo_settings_would_be_noticed() -> None:
    assert demo_settings_in(resolve(DEMO)) == demo_settings_in(resolve(DEMO, method="npo")) == list(DEMO_SETTINGS)
    assert demo_settings_in(resolve(DEMO), ["training.steps"]) == [key for key in DEMO_SETTINGS if key != "training.steps"]
    assert demo_settings_in(resolve()) == []
    assert options(["unlearn", "--set", "a=1", "--set", "b=2", "--out"], "--set") == ["a=1", "b=2"]


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
        assert {extra for found in re.findall(r"\[([a-z,]+)\]\"", line) for extra in found.split(",")} <= set(extras), line


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
    code = block.text.replace("forget, retain, out=", "forget, retain, quick, allow_unknown=True, out=")
    assert code != block.text
    quick = resolve(overrides=["training.steps=1", "training.forget_batch=2", "training.retain_batch=2", "method.adversary=null"])
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


def test_the_recipe_of_the_documentation_is_valid(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.title == "mine.yaml"]
    (tmp_path / "mine.yaml").write_text(block.text)
    assert resolve(tmp_path / "mine.yaml") != resolve("own-data")


def test_the_policy_of_the_documentation_is_valid(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "audit.md") if block.title == "policy.yaml"]
    (tmp_path / "policy.yaml").write_text(block.text)
    assert list(load_policy(tmp_path / "policy.yaml").attacks) == ["paraphrase", "relearn"]


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
