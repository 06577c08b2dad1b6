"""Rendering of templates. A page is one HTML file that loads nothing; its only script sorts and filters tables, and may be missing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vgid.errors import DataError
from vgid.report.words import model_name


class Script(NamedTuple):
    """The script of every page.

    Attributes:
        text: the script.
        hash: its digest, in the form of a content security policy, which lets no other script run.
    """

    text: Markup
    hash: str


def check_schema(results: Mapping[str, Any], schema: str, what: str = "these results") -> None:
    """Make sure that a results object is of the schema that a page shows.

    Args:
        results: the results object.
        schema: the schema that is needed.
        what: a word for the object, for the error message.

    Raises:
        DataError: the object is of another schema.
    """
    if results.get("schema") != schema:
        raise DataError(f"{what} cannot be shown", expected=f"schema {schema!r}", got=repr(results.get("schema")))


def render_template(name: str, **values: Any) -> str:
    """Render a template of this package; every value is escaped, except `Markup`.

    Args:
        name: file name of the template.
        **values: what the template uses; a missing value is an error.

    Returns:
        The page as text.
    """
    return str(environment().get_template(name).render(**values))


@cache
def script() -> Script:
    """Read the script that every page holds."""
    text = (files("vgid.report") / "templates" / "page.js").read_text("utf-8")
    return Script(Markup(text), f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}")


@cache
def environment() -> Environment:
    """Make the environment of all templates, with the script and the filters that they use."""
    made = Environment(
        loader=PackageLoader("vgid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["script"] = script()
    made.filters.update(data_uri=_data_uri, model_name=model_name, commands=_commands)
    return made


def _commands(text: str) -> Markup:
    """Set commands and options in a sentence as code, which does not break at a hyphen."""
    return Markup(
        re.sub(
            r"(?<![\w-])(vgid [a-z]+(?:-[a-z]+)*(?: --served URL)?|--[a-z]+(?:-[a-z]+)*(?: full)?)",
            r'<code class="nobreak">\1</code>',
            str(escape(text)),
        )
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
