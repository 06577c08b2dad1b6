"""The packages that draw are an extra: the demo names what is missing, and everything else works without them."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vgid.errors import ConfigError
from vgid.synthetic import portraits
from vgid.synthetic.people import World

PACKAGES = ("dicebear", "dicebear_styles", "resvg_py")


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Start as if nothing had been drawn, so that the packages are imported again."""
    portraits._tools.cache_clear()
    portraits.appearance.cache_clear()
    yield
    portraits._tools.cache_clear()


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.usefixtures("undrawn")
def test_a_missing_package_is_one_error_with_its_fix(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails from here on
    with pytest.raises(ConfigError, match=rf'(?s)found: .*{package}.*fix: pip install "vgid\[demo\]"'):
        World()


def test_nothing_is_imported_before_something_is_drawn() -> None:
    code = f"import sys, vgid.synthetic.splits, vgid.commands.demo; assert not {set(PACKAGES)} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_extra_is_part_of_the_tools_for_development() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    demo, dev = (set(project["optional-dependencies"][name]) for name in ("demo", "dev"))
    assert len(demo) == 3 and demo <= dev and not demo & set(project["dependencies"])
