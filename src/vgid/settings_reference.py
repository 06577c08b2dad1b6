"""Every setting with its meaning: for `vgid config`, and for docs/settings.md, which is written from here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from vgid.config import RunConfig
from vgid.methods import METHODS
from vgid.settings import AdapterConfig, DataConfig, TrainingConfig, ValidationConfig

WIDTH = 100
"""Characters of a comment's line."""


def meanings(kind: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a settings type, and of those it builds on, says about each field.

    Args:
        kind: a type whose docstring has an `Attributes:` section.

    Returns:
        Field to meaning, each in one line.
    """
    found: dict[str, str] = {}
    for each in reversed([base for base in kind.__mro__ if issubclass(base, BaseModel) and base.__doc__]):
        section = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(each.__doc__ or ""), re.DOTALL | re.MULTILINE)
        for entry in re.split(r"\n(?= {4}\w+:)", section[1] if section else ""):
            name, _, text = entry.strip().partition(":")
            found[name] = " ".join(text.split())
    return {name: text for name, text in found.items() if name in kind.model_fields}


def as_yaml(config: RunConfig) -> str:
    """A configuration as YAML, the meaning of each setting beside it; reading it back gives the same configuration."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(settings: BaseModel, indent: str) -> Iterator[str]:
    told = meanings(type(settings))
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if indent == "" and isinstance(value, BaseModel):
            yield ""
        if name in told:
            yield from (f"{indent}# {line}" for line in _wrapped(told[name]))
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(settings.model_dump(mode='json')[name])}"


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= WIDTH:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def as_markdown() -> str:
    """The page docs/settings.md: shared settings, then those of each method."""
    shared: tuple[tuple[str, type[BaseModel], str], ...] = (
        ("", RunConfig, "Top level"),
        ("data.", DataConfig, "Data"),
        ("training.", TrainingConfig, "Training"),
        ("validation.", ValidationConfig, "Early stopping"),
        ("adapter.", AdapterConfig, "Adapter"),
    )
    parts = [HEAD]
    for prefix, kind, title in shared:
        parts += [f"## {title}", "", *_table(kind, prefix), ""]
    parts += ["## Methods", ""]
    for name in sorted(METHODS):
        if METHODS.package(name) is None:
            table = _table(METHODS.get(name).Config, "method.")
            parts += [f"### {name}", "", *(table if len(table) > 2 else ["No settings."]), ""]
    return "\n".join(parts).rstrip() + "\n"


HEAD = """# Settings

<!-- Written by `python -m vgid.settings_reference`; a test compares it with the code. -->

One resolver works out the settings of a run, in this order: defaults, the method's own defaults, the recipe (`--recipe`, with
`extends:`), and overrides (`--set a.b=value`). `vgid config --recipe NAME --method NAME` prints the result. The defaults are meant
for real checkpoints; the demo's numbers are in the recipe `demo`.
"""


def _table(kind: type[BaseModel], prefix: str) -> list[str]:
    told = meanings(kind)
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        if name == "name" or (prefix == "" and name in ("training", "validation", "adapter", "method")):
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        inner = default if isinstance(default, BaseModel) else None
        shown = "see below" if inner else _shown(default)
        rows.append(f"| `{prefix}{name}` | {shown} | {_cell(told.get(name, ''))} |")
        if inner is not None:
            rows += _table(type(inner), f"{prefix}{name}.")[2:]
    return rows


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return ""
    return f"`{_scalar(list(value) if isinstance(value, tuple) else value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(as_markdown(), end="")
